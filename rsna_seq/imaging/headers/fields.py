"""Header fields of one slice that the pipeline uses, parsed from the elements as text."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

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
"""Keywords (PS3.6) of the elements that are read: text, and 16-bit integers."""
OPEN = frozenset(map(str, (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)))
"""Transfer syntaxes with uncompressed pixels."""
SMALLEST, LARGEST = 16, 8192
"""Bounds of rows and columns of a CT slice."""
FARTHEST_MM = 5000.0
"""Positions farther from the scanner's origin are treated as missing."""
SPACING_MM = (0.01, 20.0)
"""Pixel spacings outside these bounds are treated as missing."""
LARGEST_COSINE = 2.0
"""Larger direction cosines mean a damaged header; valid ones are at most 1."""
SLOPES = (0.01, 100.0)
"""Bounds of the absolute rescale slope: with a smaller one, 16 bits do not cover air to bone."""
LARGEST_INTERCEPT = 32768.0
CT_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.2{kind}" for kind in ("", ".1", ".2"))
"""CT Image Storage, Enhanced CT Image Storage, Legacy Converted Enhanced CT Image Storage."""
LOSSY_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{i}" for i in (50, 51, 81))
"""JPEG baseline and extended, near-lossless JPEG-LS; for JPEG 2000 see LossyImageCompression."""
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""Prefix of the UIDs of Secondary Capture Image Storage, single and multi-frame."""


@dataclass(frozen=True)
class Header:
    """Header fields of one slice that the pipeline uses.

    Attributes:
        slice: SOPInstanceUID; ``UID#N`` for a frame of a multi-frame object, N from 1.
        frame: Number of the frame in its object, from 0.
        position: ImagePositionPatient in mm, or None if it is absent or invalid.
        orientation: ImageOrientationPatient, six direction cosines, or None.
        location: SliceLocation, or None.
        number: InstanceNumber, or None.
        padding: PixelPaddingValue, or None.
        pixel_offset: First byte of uncompressed pixels, or None if they are compressed.
        kernel: ConvolutionKernel, empty if absent.
        contrast: Whether ContrastBolusAgent is given.
        lossy: Whether the pixels were ever compressed with loss.
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

    def row(self) -> dict[str, object]:
        """The header as a row of ``checks.COLUMNS``; the coordinates are columns of their own."""
        row = asdict(self)
        row |= {f"p_{i}": p for i, p in enumerate(self.position or ())}
        return row | {f"o_{i}": o for i, o in enumerate(self.orientation or ())}


def header_of(values: Values, syntax: str, *, assume_hu: bool, frame: int = 0) -> Header:
    """Parse the header of one frame, without the position of its pixels.

    Args:
        values: Elements as text, by keyword.
        syntax: TransferSyntaxUID.
        assume_hu: Use stored values as HU if there is no rescale.
        frame: Number of the frame in its object, from 0.

    Raises:
        ExclusionError: The image is not 16-bit monochrome, or has no valid rescale.
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
    """Refuse images that are not 16-bit monochrome or implausible in size; return BitsStored."""
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
    """PixelPaddingValue as stored in pixels: its VR does not always show whether it is signed."""
    if not -32768 <= value <= 65535:
        return None
    if signed:
        return value - 65536 if value > 32767 else value
    return value % 65536


UNITS = ("", "HU", "US")
"""Values of RescaleType (PS3.3 C.11.1) that are read as HU; some toolkits write US (unspecified)."""


def _rescale(values: Values, *, assume_hu: bool) -> tuple[float, float]:
    """Parse the rescale slope and intercept to HU."""
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
    """ImagePositionPatient in mm; None if it is absent or implausibly far away."""
    found = numbers(values, "ImagePositionPatient", 3)
    if found is None or max(map(abs, found)) > FARTHEST_MM:
        return None
    return found[0], found[1], found[2]


def orientation(values: Values) -> tuple[float, ...] | None:
    """ImageOrientationPatient, six direction cosines; None if they do not span a plane."""
    cosines = numbers(values, "ImageOrientationPatient", 6)
    if cosines is None or max(map(abs, cosines)) > LARGEST_COSINE:
        return None
    if not 0.5 <= math.hypot(*cross(cosines)) <= 2:
        return None
    return cosines


def cross(o: tuple[float, ...]) -> tuple[float, float, float]:
    """Slice normal: cross product of row and column direction."""
    return o[1] * o[5] - o[2] * o[4], o[2] * o[3] - o[0] * o[5], o[0] * o[4] - o[1] * o[3]


def with_pixels(header: Header, parsed: Parsed, *, frames: int) -> Header:
    """Add the offset of uncompressed pixels.

    Raises:
        ExclusionError: The file is too short for the pixels.
    """
    open_ = header.transfer_syntax in OPEN or header.transfer_syntax == DeflatedExplicitVRLittleEndian
    if not open_ or parsed.pixels is None:
        return header
    each = 2 * header.rows * header.columns
    wanted, there = frames * each, parsed.size - parsed.pixels
    if there < wanted:
        raise ExclusionError(Reason.PIXELS_TRUNCATED, f"{max(0, there):,} of {wanted:,} bytes")
    if parsed.length is not None and parsed.length < wanted:
        raise ExclusionError(
            Reason.PIXELS_TRUNCATED, f"a declared length of {parsed.length:,} instead of {wanted:,} bytes"
        )
    if parsed.length is not None and parsed.length > there:
        raise ExclusionError(
            Reason.LENGTH_OVERRUN, f"a declared length of {parsed.length:,} bytes, {there:,} present"
        )
    return replace(header, pixel_offset=parsed.pixels + header.frame * each)


def numbers(values: Values, name: str, count: int) -> tuple[float, ...] | None:
    """An element as finite numbers; None if it is absent, not numeric, or has another number of values."""
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
    """An element as an integer; 0 if it is not one."""
    found = numbers(values, name, 1)
    return int(found[0]) if found else 0
