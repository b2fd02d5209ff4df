"""Public data sets and their file formats."""
