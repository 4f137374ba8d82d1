"""The queen that a command uses, found or started."""
