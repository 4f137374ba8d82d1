"""Commands that install the program on this machine, and remove it."""
