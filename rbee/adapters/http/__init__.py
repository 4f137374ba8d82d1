"""HTTP and server-sent events, both ends."""
