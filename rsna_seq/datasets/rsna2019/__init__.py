"""The RSNA 2019 competition: layout of its files, label CSV, submission."""
