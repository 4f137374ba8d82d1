"""Tables and pictures of the swarm."""
