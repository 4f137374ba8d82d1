"""The queen's HTTP interface."""
