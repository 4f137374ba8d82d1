"""The life of the workers of this machine."""
