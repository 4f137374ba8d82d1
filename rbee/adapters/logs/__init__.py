"""Log files: written, rotated, redacted, read and followed."""
