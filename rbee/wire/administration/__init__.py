"""What those who administer the swarm ask the queen: its keys, and what became of requests."""
