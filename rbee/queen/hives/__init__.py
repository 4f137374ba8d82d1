"""How each node's hive is reached, and what it reports."""
