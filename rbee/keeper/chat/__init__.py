"""A conversation on the terminal: what is typed, what it means, and how an answer is shown."""
