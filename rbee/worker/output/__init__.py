"""What a model has written, control tokens visible: parted into text, reasoning and tool calls."""
