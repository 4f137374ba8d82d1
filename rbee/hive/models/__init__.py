"""Fetching and removing models."""
