"""Which node and which worker serve a request, and which requests wait."""
