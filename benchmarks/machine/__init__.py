"""The device, what the machine did meanwhile, what it can do at most, and how it fails."""
