"""The settings of the user's ssh: where a name leads, and how."""
