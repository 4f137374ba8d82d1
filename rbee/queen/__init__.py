"""The daemon that decides which node and worker serve a request."""
