"""The commands, their options, and the values that users type."""
