"""llama.cpp: the only callers of its C functions."""
