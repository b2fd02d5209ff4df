"""The header of one DICOM file: what the pipeline wants to know, or a typed reason why it is not read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from rsna_seq.imaging.elements import Elements, read_elements
from rsna_seq.reasons import Action, Reason, SetAsideError

Values = Mapping[str, str]
_OPEN = frozenset(map(str, (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)))
"""Transfer syntaxes whose pixels lie open in the file."""
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


def read_header(path: Path | str, *, assume_hu: bool = False) -> Header:
    """Read the header of a CT slice.

    Args:
        path: A file.
        assume_hu: Take stored values as HU where there is no rescale.

    Raises:
        SetAsideError: The file is no CT slice that can be read.
    """
    elements = read_elements(path)
    values = elements.values
    try:
        _must_be_ct(values)
        header = _header(values, elements.transfer_syntax, assume_hu=assume_hu)
        return _with_pixels(header, elements)
    except SetAsideError as error:
        error.study, error.slice = values.get("StudyInstanceUID"), values.get("SOPInstanceUID")
        error.z_mm = _place(_numbers(values, "ImagePositionPatient", 3), _orientation(values))
        raise


def _place(position: tuple[float, ...] | None, orientation: tuple[float, ...] | None) -> float | None:
    """Where a slice lies along its normal, in mm; ``geometry.place`` does the same for whole tables."""
    if position is None or orientation is None:
        return position[2] if position else None
    normal = _cross(orientation)
    along = sum(n * p for n, p in zip(normal, position, strict=True)) / math.hypot(*normal)
    return round(-along if normal[2] < 0 else along, 3)


def _must_be_ct(values: Values) -> None:
    """Refuse other modalities, and objects without an image."""
    modality = values.get("Modality", "")
    if modality and modality != "CT":
        raise SetAsideError(Reason.NOT_CT, modality, action=Action.SKIPPED)
    if not all(values.get(name) for name in ("SOPInstanceUID", "StudyInstanceUID")):
        raise SetAsideError(Reason.HEADER_TRUNCATED, "no SOPInstanceUID or StudyInstanceUID")


def _header(values: Values, transfer_syntax: str, *, assume_hu: bool) -> Header:
    """The header's values, checked."""
    rows, columns = _int(values, "Rows"), _int(values, "Columns")
    if not (0 < rows <= _LARGEST and 0 < columns <= _LARGEST):
        raise SetAsideError(Reason.BAD_DIMENSIONS, f"{rows} x {columns}")
    photometric = values.get("PhotometricInterpretation", "") or "MONOCHROME2"
    bits = _int(values, "BitsStored")
    if not photometric.startswith("MONOCHROME") or _int(values, "BitsAllocated") != 16 or not 8 <= bits <= 16:
        raise SetAsideError(Reason.BAD_PIXEL_FORMAT, f"{photometric}, {bits} bits")
    if _int(values, "NumberOfFrames") > 1:
        raise SetAsideError(Reason.MULTI_FRAME, values["NumberOfFrames"], action=Action.SKIPPED)
    slope, intercept = _rescale(values, assume_hu=assume_hu)
    spacing = _numbers(values, "PixelSpacing", 2)
    position = _numbers(values, "ImagePositionPatient", 3)
    location, number = _numbers(values, "SliceLocation", 1), _numbers(values, "InstanceNumber", 1)
    padding = _numbers(values, "PixelPaddingValue", 1)
    return Header(
        study=values.get("StudyInstanceUID", ""),
        series=values.get("SeriesInstanceUID", ""),
        slice=values.get("SOPInstanceUID", ""),
        patient=values.get("PatientID", ""),
        image_type=values.get("ImageType", "").upper(),
        position=(position[0], position[1], position[2]) if position else None,
        orientation=_orientation(values),
        location=location[0] if location else None,
        number=int(number[0]) if number else None,
        row_mm=spacing[0] if spacing and min(spacing) > 0 else None,
        col_mm=spacing[1] if spacing and min(spacing) > 0 else None,
        rows=rows,
        columns=columns,
        slope=slope,
        intercept=intercept,
        bits_stored=bits,
        signed=_int(values, "PixelRepresentation") == 1,
        photometric=photometric,
        padding=int(padding[0]) if padding else None,
        transfer_syntax=transfer_syntax,
        pixel_offset=None,
        kernel=values.get("ConvolutionKernel", ""),
        contrast=bool(values.get("ContrastBolusAgent", "")),
        description=values.get("SeriesDescription", ""),
    )


def _rescale(values: Values, *, assume_hu: bool) -> tuple[float, float]:
    slope, intercept = _numbers(values, "RescaleSlope", 1), _numbers(values, "RescaleIntercept", 1)
    if slope is None or intercept is None:
        if assume_hu:
            return 1.0, 0.0
        raise SetAsideError(Reason.NO_RESCALE)
    if not (0 < abs(slope[0]) <= 100 and abs(intercept[0]) <= 32768):
        raise SetAsideError(Reason.BAD_RESCALE, f"slope {slope[0]:g}, intercept {intercept[0]:g}")
    return slope[0], intercept[0]


def _orientation(values: Values) -> tuple[float, ...] | None:
    """Six direction cosines; None where they span no plane."""
    cosines = _numbers(values, "ImageOrientationPatient", 6)
    if cosines is None or math.hypot(*_cross(cosines)) < 0.5:
        return None
    return cosines


def _cross(o: tuple[float, ...]) -> tuple[float, float, float]:
    """Row direction x column direction: the slice normal."""
    return o[1] * o[5] - o[2] * o[4], o[2] * o[3] - o[0] * o[5], o[0] * o[4] - o[1] * o[3]


def _with_pixels(header: Header, elements: Elements) -> Header:
    """Add where the pixels lie, and refuse a file that is too short for them."""
    if elements.pixels is None:
        raise SetAsideError(Reason.PIXELS_MISSING)
    if header.transfer_syntax not in _OPEN:
        return header
    wanted, there = 2 * header.rows * header.columns, elements.size - elements.pixels
    if there < wanted:
        raise SetAsideError(Reason.PIXELS_TRUNCATED, f"{max(0, there):,} of {wanted:,} bytes")
    if elements.length is not None and elements.length < wanted:
        raise SetAsideError(Reason.PIXELS_TRUNCATED, f"declared as {elements.length:,} of {wanted:,} bytes")
    return replace(header, pixel_offset=elements.pixels)


def _numbers(values: Values, name: str, count: int) -> tuple[float, ...] | None:
    """An element as finite numbers; None where it is absent, not numeric, or of another count."""
    text = values.get(name)
    if not text:
        return None
    parts = text.split("\\")
    if len(parts) != count:
        return None
    try:
        numbers = tuple(map(float, parts))
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _int(values: Values, name: str) -> int:
    numbers = _numbers(values, name, 1)
    return int(numbers[0]) if numbers else 0
