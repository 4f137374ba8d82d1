"""The hive's HTTP interface."""
