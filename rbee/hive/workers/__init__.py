"""Starting, watching and ending the workers of this machine."""
