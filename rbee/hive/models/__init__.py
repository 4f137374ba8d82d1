"""Fetching models, and removing them."""
