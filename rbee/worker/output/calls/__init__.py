"""The formats of tool calls: each is read while it is written."""
