"""DICOM, geometry, windows: from files to Hounsfield units in order."""
