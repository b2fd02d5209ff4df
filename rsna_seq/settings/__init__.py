"""Types and bounds of config values, and reading of config files."""
