"""The daemon that owns the models and workers of one node."""
