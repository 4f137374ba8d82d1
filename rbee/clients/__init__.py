"""HTTP clients: how a role talks to the one below it."""
