"""The database of nodes, and which hive belongs to which."""
