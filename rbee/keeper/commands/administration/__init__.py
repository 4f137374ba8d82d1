"""Commands that make and revoke API keys, and show what became of requests."""
