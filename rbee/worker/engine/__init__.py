"""Batches, sequences and slots: several requests decoded together."""
