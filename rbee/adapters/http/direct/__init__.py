"""Event streams of daemons, read straight from their sockets, without httpx."""
