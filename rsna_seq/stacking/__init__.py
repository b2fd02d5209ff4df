"""What the stacker needs beside LightGBM: features, gates and calibration."""
