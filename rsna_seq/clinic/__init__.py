"""Results for clinical systems: ``studies.json`` and DICOM objects."""
