"""Who may do what at the queen: the swarm's token, API keys, the same user, and everyone where that is wanted."""
