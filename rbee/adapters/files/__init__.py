"""Files on the local disk: atomic, private, hashed."""
