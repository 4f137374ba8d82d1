"""How a role talks to the one below it."""
