"""All bad inputs that lie in one folder with good studies, in the order of their numbers."""

import cases_files
import cases_geometry
import cases_objects
import cases_values
from case_list import CASES, Case

__all__ = ["CASES", "Case"]
MODULES = (cases_files, cases_geometry, cases_values, cases_objects)
"""Modules that add cases to the list when they are imported."""
CASES.sort(key=lambda case: case.number)  # stable: cases of one number keep their order
