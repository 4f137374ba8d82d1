"""The way to each node's hive, and what it reports."""
