"""Input: from DICOM files to sorted slices in Hounsfield units."""
