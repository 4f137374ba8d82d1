"""Which node and which worker serve a request, and who waits."""
