"""The registered nodes, and which hive is whose."""
