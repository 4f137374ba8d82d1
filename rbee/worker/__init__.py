"""The daemon that serves one model."""
