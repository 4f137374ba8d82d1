"""What a worker reports of itself."""
