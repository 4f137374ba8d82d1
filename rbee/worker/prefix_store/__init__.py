"""What the memory held of prompts, kept as bytes: in RAM first, then on the disk."""
