"""The life of a daemon: one per role and state folder, announced, supervised, ended."""
