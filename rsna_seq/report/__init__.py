"""HTML reports: figures and self-contained pages."""
