"""Methods of others for the same files and slices, each reimplemented from its description."""
