"""The processors, memory and devices of this machine."""
