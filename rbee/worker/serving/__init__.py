"""The worker's HTTP interface."""
