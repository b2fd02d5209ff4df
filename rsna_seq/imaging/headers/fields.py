"""What the pipeline wants to know of one slice, from the elements of its header as text."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from rsna_seq.imaging.headers.elements import Parsed
from rsna_seq.reasons import ExclusionError, Reason

Values = Mapping[str, str]
TEXTS = (
    *("ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesDescription", "PatientID"),
    *("ContrastBolusAgent", "ConvolutionKernel", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber"),
    *("SliceLocation", "ImagePositionPatient", "ImageOrientationPatient", "PhotometricInterpretation"),
    *("NumberOfFrames", "PixelSpacing", "RescaleIntercept", "RescaleSlope", "LossyImageCompression"),
    *("RescaleType", "SpecificCharacterSet"),
)
SHORTS = (
    *("SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored"),
    *("PixelRepresentation", "PixelPaddingValue"),
)
"""Keywords (PS3.6) of the elements that are read: text, and 16-bit numbers."""
OPEN = frozenset(map(str, (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)))
"""Transfer syntaxes whose pixels lie open in the file."""
SMALLEST, LARGEST = 16, 8192
"""Rows or columns below and beyond this are no CT slice."""
FARTHEST_MM = 5000.0
"""Positions farther from the scanner's origin are no positions, and are treated as missing."""
SPACING_MM = (0.01, 20.0)
"""Pixels narrower or wider are no CT's: their spacing is treated as missing."""
LARGEST_COSINE = 2.0
"""Direction cosines of a damaged header; sound ones are at most 1."""
SLOPES = (0.01, 100.0)
"""Rescale slopes, but for their sign: with less, 16 bits do not reach from air to bone."""
LARGEST_INTERCEPT = 32768.0
CT_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.2{kind}" for kind in ("", ".1", ".2"))
"""CT Image Storage, Enhanced CT Image Storage, Legacy Converted Enhanced CT Image Storage."""
LOSSY_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{i}" for i in (50, 51, 81))
"""JPEG baseline and extended, near-lossless JPEG-LS; JPEG 2000 tells by LossyImageCompression."""
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""Secondary Capture Image Storage, single and multi-frame: its UID begins so."""


@dataclass(frozen=True)
class Header:
    """What the pipeline wants to know of one slice.

    Attributes:
        slice: SOPInstanceUID; of a frame among others ``UID#N``, N from 1.
        frame: Number of the frame in its object, from 0.
        position: ImagePositionPatient in mm, or None where it is absent or no position.
        orientation: ImageOrientationPatient, six direction cosines, or None.
        location: SliceLocation, or None.
        number: InstanceNumber, or None.
        padding: PixelPaddingValue, or None.
        pixel_offset: First byte of uncompressed pixels, or None where they must be decoded.
        kernel: ConvolutionKernel, empty where absent.
        contrast: ContrastBolusAgent is named.
        lossy: The pixels were once compressed with loss.
    """

    study: str
    series: str
    slice: str
    frame: int
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
    lossy: bool
    description: str


def header_of(values: Values, syntax: str, *, assume_hu: bool, frame: int = 0) -> Header:
    """The header of one frame; where its pixels lie is not yet known.

    Args:
        values: Elements as text, by keyword.
        syntax: TransferSyntaxUID.
        assume_hu: Take stored values as HU where there is no rescale.
        frame: Number of the frame in its object, from 0.

    Raises:
        ExclusionError: It is no 16-bit monochrome image, or has no sound rescale.
    """
    bits = _must_be_monochrome(values)
    slope, intercept = _rescale(values, assume_hu=assume_hu)
    spacing = numbers(values, "PixelSpacing", 2) or (0.0, 0.0)
    spaced = all(SPACING_MM[0] <= side <= SPACING_MM[1] for side in spacing)
    location, number = numbers(values, "SliceLocation", 1), numbers(values, "InstanceNumber", 1)
    padding, signed = numbers(values, "PixelPaddingValue", 1), integer(values, "PixelRepresentation") == 1
    return Header(
        study=values.get("StudyInstanceUID", ""),
        series=values.get("SeriesInstanceUID", ""),
        slice=values.get("SOPInstanceUID", ""),
        frame=frame,
        patient=values.get("PatientID", ""),
        image_type=values.get("ImageType", "").upper(),
        position=position(values),
        orientation=orientation(values),
        location=location[0] if location and abs(location[0]) <= FARTHEST_MM else None,
        number=int(number[0]) if number and abs(number[0]) < 2**31 else None,
        row_mm=spacing[0] if spaced else None,
        col_mm=spacing[1] if spaced else None,
        rows=integer(values, "Rows"),
        columns=integer(values, "Columns"),
        slope=slope,
        intercept=intercept,
        bits_stored=bits,
        signed=signed,
        photometric=values.get("PhotometricInterpretation", "") or "MONOCHROME2",
        padding=_padding(int(padding[0]), signed=signed) if padding else None,
        transfer_syntax=syntax,
        pixel_offset=None,
        kernel=values.get("ConvolutionKernel", ""),
        contrast=bool(values.get("ContrastBolusAgent", "")),
        lossy=values.get("LossyImageCompression") == "01" or syntax in LOSSY_SYNTAXES,
        description=values.get("SeriesDescription", ""),
    )


def _must_be_monochrome(values: Values) -> int:
    """Refuse what is no 16-bit monochrome image of a sane size; its BitsStored."""
    rows, columns = integer(values, "Rows"), integer(values, "Columns")
    if not (SMALLEST <= rows <= LARGEST and SMALLEST <= columns <= LARGEST):
        raise ExclusionError(Reason.BAD_DIMENSIONS, f"{rows} x {columns}")
    photometric = values.get("PhotometricInterpretation", "") or "MONOCHROME2"
    bits, samples = integer(values, "BitsStored"), integer(values, "SamplesPerPixel")
    grey = photometric in {"MONOCHROME1", "MONOCHROME2"} and samples in {0, 1}
    if not grey or integer(values, "BitsAllocated") != 16 or not 8 <= bits <= 16:
        raise ExclusionError(Reason.BAD_PIXEL_FORMAT, f"{photometric[:16]}, {bits} bits")
    return bits


def _padding(value: int, *, signed: bool) -> int | None:
    """PixelPaddingValue as pixels hold it: its VR does not always tell whether it is signed."""
    if not -32768 <= value <= 65535:
        return None
    if signed:
        return value - 65536 if value > 32767 else value
    return value % 65536


UNITS = ("", "HU", "US")
"""RescaleType (PS3.3 C.11.1) that is read as HU; toolkits write US (unspecified) into CT in HU."""


def _rescale(values: Values, *, assume_hu: bool) -> tuple[float, float]:
    """Slope and intercept to HU."""
    slope, intercept = numbers(values, "RescaleSlope", 1), numbers(values, "RescaleIntercept", 1)
    unit = values.get("RescaleType", "")
    if unit not in UNITS:
        raise ExclusionError(Reason.NOT_HU, unit[:16])
    if slope is None or intercept is None:
        if assume_hu:
            return 1.0, 0.0
        raise ExclusionError(Reason.NO_RESCALE)
    if not (SLOPES[0] <= abs(slope[0]) <= SLOPES[1] and abs(intercept[0]) <= LARGEST_INTERCEPT):
        raise ExclusionError(Reason.BAD_RESCALE, f"slope {slope[0]:g}, intercept {intercept[0]:g}")
    return slope[0], intercept[0]


def position(values: Values) -> tuple[float, float, float] | None:
    """ImagePositionPatient in mm; None where it is absent, or farther away than any scanner reaches."""
    found = numbers(values, "ImagePositionPatient", 3)
    if found is None or max(map(abs, found)) > FARTHEST_MM:
        return None
    return found[0], found[1], found[2]


def orientation(values: Values) -> tuple[float, ...] | None:
    """ImageOrientationPatient, six direction cosines; None where they span no plane."""
    cosines = numbers(values, "ImageOrientationPatient", 6)
    if cosines is None or max(map(abs, cosines)) > LARGEST_COSINE:
        return None
    if not 0.5 <= math.hypot(*cross(cosines)) <= 2:
        return None
    return cosines


def cross(o: tuple[float, ...]) -> tuple[float, float, float]:
    """Row direction x column direction: the slice normal."""
    return o[1] * o[5] - o[2] * o[4], o[2] * o[3] - o[0] * o[5], o[0] * o[4] - o[1] * o[3]


def with_pixels(header: Header, parsed: Parsed, *, frames: int) -> Header:
    """Add where the pixels lie, where they lie open.

    Raises:
        ExclusionError: The file is too short for them.
    """
    open_ = header.transfer_syntax in OPEN or header.transfer_syntax == DeflatedExplicitVRLittleEndian
    if not open_ or parsed.pixels is None:
        return header
    each = 2 * header.rows * header.columns
    wanted, there = frames * each, parsed.size - parsed.pixels
    if there < wanted:
        raise ExclusionError(Reason.PIXELS_TRUNCATED, f"{max(0, there):,} of {wanted:,} bytes")
    if parsed.length is not None and parsed.length < wanted:
        raise ExclusionError(Reason.PIXELS_TRUNCATED, f"declared as {parsed.length:,} of {wanted:,} bytes")
    if parsed.length is not None and parsed.length > there:
        raise ExclusionError(Reason.LENGTH_OVERRUN, f"pixels of {parsed.length:,} bytes, {there:,} there")
    return replace(header, pixel_offset=parsed.pixels + header.frame * each)


def numbers(values: Values, name: str, count: int) -> tuple[float, ...] | None:
    """An element as finite numbers; None where it is absent, not numeric, or of another count."""
    text = values.get(name)
    if not text:
        return None
    parts = text.split("\\")
    if len(parts) != count:
        return None
    try:
        found = tuple(map(float, parts))
    except ValueError:
        return None
    return found if all(map(math.isfinite, found)) else None


def integer(values: Values, name: str) -> int:
    """An element as a whole number; 0 where it is none."""
    found = numbers(values, name, 1)
    return int(found[0]) if found else 0
