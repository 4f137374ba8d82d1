"""Idioms of trio that several roles need, one each."""
