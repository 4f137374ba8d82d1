"""The engine's loop: batches, sequences, slots."""
