"""Following a generation, straight from the worker or through the queen."""
