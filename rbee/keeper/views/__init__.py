"""Tables of the swarm, shared by commands."""
