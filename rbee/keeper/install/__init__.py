"""What `rbee install` writes, and where."""
