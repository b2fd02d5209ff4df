"""Tools beside the stages: phantoms, label CSVs, PNGs."""
