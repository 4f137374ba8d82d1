"""Commands in which people talk with a model."""
