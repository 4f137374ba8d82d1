"""Which models are on this disk, in the user's cache, and on other nodes."""
