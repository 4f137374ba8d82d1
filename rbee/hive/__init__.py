"""The daemon that keeps the models and runs the workers of one machine."""
