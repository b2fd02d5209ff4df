"""DICOM headers: one file by pydicom, or thousands at a time by a vectorised reader."""
