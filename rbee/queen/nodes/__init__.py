"""The nodes of the swarm, each with its hive and its scheduler."""
