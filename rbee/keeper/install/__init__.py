"""What `rbee install` puts where."""
