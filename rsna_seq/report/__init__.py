"""The reports: figures and self-contained pages."""
