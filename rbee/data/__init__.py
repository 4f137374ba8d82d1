"""Files that ship with the program: the bundled model."""
