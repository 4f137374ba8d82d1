"""HTTP and server-sent events, client and server."""
