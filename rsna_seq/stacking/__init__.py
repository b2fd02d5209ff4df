"""Features, gates and calibration of the stacking stage."""
