"""Data sets that others made, and their files."""
