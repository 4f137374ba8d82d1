"""What is said between a user, a model and its tools, and how a model's template writes it."""
