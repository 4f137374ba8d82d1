"""The only writers to stdout and stderr."""
