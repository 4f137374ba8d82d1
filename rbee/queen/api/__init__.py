"""Dialects: requests of other interfaces become those of this swarm, and what a worker answers becomes theirs."""
