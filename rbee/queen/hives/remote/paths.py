"""Where rbee's files lie on a node."""

from __future__ import annotations


class NodePaths:
    """The files of one installation, below its install path."""

    def __init__(self, install: str) -> None:
        self.program = f"{install}/bin/rbee"
        self.python = f"{install}/bin/rbee-python"  # a link to the Python that runs the program
        self.config = f"{install}/config.toml"
        self.token = f"{install}/token"
        self.cache = f"{install}/cache"
        self.state = f"{install}/state"
        self.logs = f"{self.state}/logs"
        self.lock = f"{self.state}/hive.lock"  # in which the hive says where it listens and which process it is
