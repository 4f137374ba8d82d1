"""The outside world, one thing per folder; knows no roles."""
