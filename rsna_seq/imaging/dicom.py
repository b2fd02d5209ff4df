"""The header of one DICOM file: what the pipeline wants to know, or a typed reason why it is not read."""

import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from rsna_seq.reasons import Action, Reason, SetAsideError

_LARGEST = 8192
"""Rows or columns beyond this are no CT slice."""


@dataclass(frozen=True)
class Header:
    """What the pipeline wants to know of one slice.

    Attributes:
        position: ImagePositionPatient in mm, or None where it is absent or no position.
        orientation: ImageOrientationPatient, six direction cosines, or None.
        location: SliceLocation, or None.
        number: InstanceNumber, or None.
        padding: PixelPaddingValue, or None.
        pixel_offset: First byte of uncompressed pixels, or None where they must be decoded.
        kernel: ConvolutionKernel, empty where absent.
        contrast: ContrastBolusAgent is named.
    """

    study: str
    series: str
    slice: str
    patient: str
    image_type: str
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    location: float | None
    number: int | None
    row_mm: float | None
    col_mm: float | None
    rows: int
    columns: int
    slope: float
    intercept: float
    bits_stored: int
    signed: bool
    photometric: str
    padding: int | None
    transfer_syntax: str
    pixel_offset: int | None
    kernel: str
    contrast: bool
    description: str


def read_header(path: Path, *, assume_hu: bool = False) -> Header:
    """Read the header of a CT slice.

    Args:
        path: A file.
        assume_hu: Take stored values as HU where there is no rescale.

    Raises:
        SetAsideError: The file is no CT slice that can be read.
    """
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        return _read(path, assume_hu=assume_hu)


def _read(path: Path, *, assume_hu: bool) -> Header:
    dataset, end, size = _parse(path)
    try:
        _must_be_ct(dataset)
        header = _header(dataset, assume_hu=assume_hu)
        return _with_pixels(header, dataset, end, size)
    except SetAsideError as error:
        error.study, error.slice = _text(dataset, "StudyInstanceUID"), _text(dataset, "SOPInstanceUID")
        error.z_mm = _place(_numbers(dataset, "ImagePositionPatient", 3), _orientation(dataset))
        raise


def _place(position: tuple[float, ...] | None, orientation: tuple[float, ...] | None) -> float | None:
    """Where a slice lies along its normal, in mm; ``geometry.place`` does the same for whole tables."""
    if position is None or orientation is None:
        return position[2] if position else None
    normal = np.cross(orientation[:3], orientation[3:])
    normal *= (-1.0 if normal[2] < 0 else 1.0) / np.linalg.norm(normal)
    return round(float(normal @ position), 3)


def _parse(path: Path) -> tuple[Dataset, int, int]:
    """The header, where it ends, and the size of the file."""
    if _size(path) == 0:
        raise SetAsideError(Reason.EMPTY_FILE)
    try:
        with path.open("rb") as file:
            dataset = pydicom.dcmread(file, stop_before_pixels=True)
            return dataset, file.tell(), _size(path)
    except InvalidDicomError as error:
        raise SetAsideError(Reason.NOT_DICOM, action=Action.SKIPPED) from error
    except OSError as error:
        raise SetAsideError(Reason.UNREADABLE_FILE, type(error).__name__) from error
    except RecursionError as error:
        raise SetAsideError(Reason.NESTED_TOO_DEEP) from error
    except Exception as error:  # a damaged header raises anything
        raise SetAsideError(Reason.HEADER_INVALID, type(error).__name__) from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise SetAsideError(Reason.UNREADABLE_FILE, type(error).__name__) from error


def _must_be_ct(dataset: Dataset) -> None:
    """Refuse other modalities, and objects without an image."""
    modality = _text(dataset, "Modality")
    if modality and modality != "CT":
        raise SetAsideError(Reason.NOT_CT, modality, action=Action.SKIPPED)
    if not all(_text(dataset, name) for name in ("SOPInstanceUID", "StudyInstanceUID")):
        raise SetAsideError(Reason.HEADER_TRUNCATED, "no SOPInstanceUID or StudyInstanceUID")


def _header(dataset: Dataset, *, assume_hu: bool) -> Header:
    """The header's values, checked."""
    rows, columns = _int(dataset, "Rows"), _int(dataset, "Columns")
    if not (0 < rows <= _LARGEST and 0 < columns <= _LARGEST):
        raise SetAsideError(Reason.BAD_DIMENSIONS, f"{rows} x {columns}")
    photometric = _text(dataset, "PhotometricInterpretation") or "MONOCHROME2"
    bits = _int(dataset, "BitsStored")
    if (
        not photometric.startswith("MONOCHROME")
        or _int(dataset, "BitsAllocated") != 16
        or not 8 <= bits <= 16
    ):
        raise SetAsideError(Reason.BAD_PIXEL_FORMAT, f"{photometric}, {bits} bits")
    slope, intercept = _rescale(dataset, assume_hu=assume_hu)
    spacing = _numbers(dataset, "PixelSpacing", 2)
    position = _numbers(dataset, "ImagePositionPatient", 3)
    location, number = _numbers(dataset, "SliceLocation", 1), _numbers(dataset, "InstanceNumber", 1)
    padding = _numbers(dataset, "PixelPaddingValue", 1)
    return Header(
        study=_text(dataset, "StudyInstanceUID"),
        series=_text(dataset, "SeriesInstanceUID"),
        slice=_text(dataset, "SOPInstanceUID"),
        patient=_text(dataset, "PatientID"),
        image_type=_text(dataset, "ImageType").upper(),
        position=(position[0], position[1], position[2]) if position else None,
        orientation=_orientation(dataset),
        location=location[0] if location else None,
        number=int(number[0]) if number else None,
        row_mm=spacing[0] if spacing and min(spacing) > 0 else None,
        col_mm=spacing[1] if spacing and min(spacing) > 0 else None,
        rows=rows,
        columns=columns,
        slope=slope,
        intercept=intercept,
        bits_stored=bits,
        signed=_int(dataset, "PixelRepresentation") == 1,
        photometric=photometric,
        padding=int(padding[0]) if padding else None,
        transfer_syntax=str(dataset.file_meta.get("TransferSyntaxUID", "1.2.840.10008.1.2")),
        pixel_offset=None,
        kernel=_text(dataset, "ConvolutionKernel"),
        contrast=bool(_text(dataset, "ContrastBolusAgent")),
        description=_text(dataset, "SeriesDescription"),
    )


def _rescale(dataset: Dataset, *, assume_hu: bool) -> tuple[float, float]:
    slope, intercept = _numbers(dataset, "RescaleSlope", 1), _numbers(dataset, "RescaleIntercept", 1)
    if slope is None or intercept is None:
        if assume_hu:
            return 1.0, 0.0
        raise SetAsideError(Reason.NO_RESCALE)
    if not (0 < abs(slope[0]) <= 100 and abs(intercept[0]) <= 32768):
        raise SetAsideError(Reason.BAD_RESCALE, f"slope {slope[0]:g}, intercept {intercept[0]:g}")
    return slope[0], intercept[0]


def _orientation(dataset: Dataset) -> tuple[float, ...] | None:
    cosines = _numbers(dataset, "ImageOrientationPatient", 6)
    if cosines is None or np.linalg.norm(np.cross(cosines[:3], cosines[3:])) < 0.5:
        return None
    return cosines


def _with_pixels(header: Header, dataset: Dataset, end: int, size: int) -> Header:
    """Add where the pixels lie, and refuse a file that is too short for them."""
    uncompressed = header.transfer_syntax in {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
    }
    if not uncompressed:
        return header
    implicit = header.transfer_syntax == ImplicitVRLittleEndian
    offset, wanted = end + (8 if implicit else 12), 2 * header.rows * header.columns
    if size <= end:
        raise SetAsideError(Reason.PIXELS_MISSING)
    if size < offset + wanted:
        raise SetAsideError(Reason.PIXELS_TRUNCATED, f"{max(0, size - offset):,} of {wanted:,} bytes")
    return replace(header, pixel_offset=offset)


def _text(dataset: Dataset, name: str) -> str:
    """An element as text; several values are joined as they stand in the file."""
    try:
        value = dataset.get(name)
    except Exception:  # an element may be damaged beyond conversion
        return ""
    if value is None:
        return ""
    parts = value if isinstance(value, MultiValue) else [value]
    return "\\".join(str(part) for part in parts).strip()


def _numbers(dataset: Dataset, name: str, count: int) -> tuple[float, ...] | None:
    """An element as finite numbers; None where it is absent, not numeric, or of another count."""
    text = _text(dataset, name)
    parts = text.split("\\") if text else []
    if len(parts) != count:
        return None
    try:
        values = tuple(float(part) for part in parts)
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None


def _int(dataset: Dataset, name: str) -> int:
    numbers = _numbers(dataset, name, 1)
    return int(numbers[0]) if numbers else 0
