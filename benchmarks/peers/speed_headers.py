"""Header values of each file, read with pydicom, dicomsdl and fastai; and the lower bound of the time.

Value validation is switched off in pydicom, which fastai uses too; both are faster without it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom import config, dcmread

TEXTS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PhotometricInterpretation")
NUMBERS = ("Rows", "Columns", "BitsStored", "PixelRepresentation", "RescaleSlope", "RescaleIntercept")
SEVERAL = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_PIXELS = 0x7FE00010
FIRST = 8192
config.settings.reading_validation_mode = config.IGNORE


def read_pydicom(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Read with ``dcmread(stop_before_pixels=True)`` and convert the values of the index."""
    rows = []
    for file in files:
        header = dcmread(file, stop_before_pixels=True)
        row: dict[str, Any] = {k: str(getattr(header, k)) for k in TEXTS}
        row |= {k: float(getattr(header, k)) for k in NUMBERS}
        row |= {k: [float(v) for v in getattr(header, k)] for k in SEVERAL}
        row["TransferSyntaxUID"] = str(header.file_meta.TransferSyntaxUID)
        rows.append(row)
    return rows


def read_dicomsdl(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Read with ``open_file(load_until=)`` and get the same values in one call."""
    import dicomsdl

    wanted = [*TEXTS, *NUMBERS, *SEVERAL, "TransferSyntaxUID"]
    rows = []
    for file in files:
        header = dicomsdl.open_file(str(file), load_until=_PIXELS)
        rows.append(dict(zip(wanted, header.getValues(wanted), strict=True)))
    return rows


def read_fastai(files: Sequence[Path]) -> Any:
    """Read with ``DataFrame.from_dicoms(px_summ=False)``, as in the competition's fastai notebooks."""
    import fastai.medical.imaging  # noqa: F401  (puts from_dicoms on DataFrame)
    import pandas as pd

    return pd.DataFrame.from_dicoms(files, n_workers=0, px_summ=False)  # type: ignore[attr-defined]


def rows_of_fastai(frame: Any) -> list[dict[str, Any]]:
    """Rename fastai's columns to DICOM keywords; fastai splits multi-valued elements into several columns."""
    counts = dict(zip(SEVERAL, (3, 6, 2), strict=True))
    rows = []
    for record in frame.to_dict("records"):
        row: dict[str, Any] = {k: str(record[k]) for k in TEXTS}
        row |= {k: float(record[k]) for k in NUMBERS}
        for keyword, count in counts.items():
            row[keyword] = [float(record[f"{keyword}{i or ''}"]) for i in range(count)]
        rows.append(row)
    return rows


def read_first_bytes(files: Sequence[str]) -> int:
    """Read only the first 8 kB of each file: the lower bound of reading a header."""
    total = 0
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        total += len(os.read(handle, FIRST))
        os.close(handle)
    return total


def find_first_bytes(folder: str) -> int:
    """List the files with their status, then read the first 8 kB of each."""
    found = [(entry.path, entry.stat().st_size) for entry in os.scandir(folder)]
    return read_first_bytes([path for path, _ in sorted(found)])
