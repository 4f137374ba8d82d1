"""What this machine has: processors, memory, devices."""
