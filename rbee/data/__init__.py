"""Files that ship with the program: the bundled model, and the settings that `rbee install` writes."""
