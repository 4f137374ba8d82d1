"""A daemon's life on its host: one per state folder, announced, supervised, ended."""
