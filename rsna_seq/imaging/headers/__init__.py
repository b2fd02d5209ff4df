"""DICOM headers: one file at a time with pydicom, or thousands at a time with a vectorised reader."""
