"""How config values are bounded and config files are read."""
