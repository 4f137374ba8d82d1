"""The daemon that runs one model."""
