"""A generation as the user sees it."""
