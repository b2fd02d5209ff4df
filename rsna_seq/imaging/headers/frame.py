"""The header of one frame from its elements: checks that its pixels can be HU, its columns, its pixels."""

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from rsna_seq.imaging.headers.elements import Parsed
from rsna_seq.imaging.headers.fields import FIELDS, SYNTAX, Header, Values, integer, numbers
from rsna_seq.reasons import ExclusionError, Reason

OPEN = frozenset(map(str, (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)))
"""Transfer syntaxes with uncompressed pixels."""
SMALLEST, LARGEST = 16, 8192
"""Bounds of rows and columns of a CT slice."""
SLOPES = (0.01, 100.0)
"""Bounds of the absolute rescale slope: with a smaller one, 16 bits do not cover air to bone."""
LARGEST_INTERCEPT = 32768.0
UNITS = ("", "HU", "US")
"""Values of RescaleType (PS3.3 C.11.1) that are read as HU; some toolkits write US (unspecified)."""
CT_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.2{kind}" for kind in ("", ".1", ".2"))
"""CT Image Storage, Enhanced CT Image Storage, Legacy Converted Enhanced CT Image Storage."""
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""Prefix of the UIDs of Secondary Capture Image Storage, single and multi-frame."""


def header_of(values: Values, syntax: str, *, assume_hu: bool, frame: int = 0) -> Header:
    """Make the header of one frame, without the position of its pixels.

    Args:
        values: Elements as text, by keyword.
        syntax: TransferSyntaxUID.
        assume_hu: Use stored values as HU if there is no rescale.
        frame: Number of the frame in its object, from 0.

    Raises:
        ExclusionError: The image is not 16-bit monochrome, or has no valid rescale.
    """
    _must_be_monochrome(values)
    values = {**values, **_rescale(values, assume_hu=assume_hu), SYNTAX: syntax}
    header: Header = {"frame": frame, SYNTAX: syntax, "pixel_offset": None}
    for field in FIELDS:
        header.update(zip(field.columns, field.one(values), strict=True))
    return header


def with_pixels(header: Header, parsed: Parsed, *, frames: int) -> Header:
    """Add the offset of uncompressed pixels.

    Raises:
        ExclusionError: The file is too short for the pixels.
    """
    open_ = header[SYNTAX] in OPEN or header[SYNTAX] == DeflatedExplicitVRLittleEndian
    if not open_ or parsed.pixels is None:
        return header
    each = 2 * header["rows"] * header["columns"]
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
    return header | {"pixel_offset": parsed.pixels + header["frame"] * each}


def _must_be_monochrome(values: Values) -> None:
    """Refuse images that are not 16-bit monochrome or implausible in size."""
    rows, columns = integer(values, "Rows"), integer(values, "Columns")
    if not (SMALLEST <= rows <= LARGEST and SMALLEST <= columns <= LARGEST):
        raise ExclusionError(Reason.BAD_DIMENSIONS, f"{rows} x {columns}")
    photometric = values.get("PhotometricInterpretation", "") or "MONOCHROME2"
    bits, samples = integer(values, "BitsStored"), integer(values, "SamplesPerPixel")
    grey = photometric in {"MONOCHROME1", "MONOCHROME2"} and samples in {0, 1}
    if not grey or integer(values, "BitsAllocated") != 16 or not 8 <= bits <= 16:
        raise ExclusionError(Reason.BAD_PIXEL_FORMAT, f"{photometric[:16]}, {bits} bits")


def _rescale(values: Values, *, assume_hu: bool) -> dict[str, str]:
    """Check the rescale to HU; the rescale of an image without one, if its values are taken as HU."""
    slope, intercept = numbers(values, "RescaleSlope", 1), numbers(values, "RescaleIntercept", 1)
    unit = values.get("RescaleType", "")
    if unit not in UNITS:
        raise ExclusionError(Reason.NOT_HU, unit[:16])
    if slope is None or intercept is None:
        if assume_hu:
            return {"RescaleSlope": "1", "RescaleIntercept": "0"}
        raise ExclusionError(Reason.NO_RESCALE)
    if not (SLOPES[0] <= abs(slope[0]) <= SLOPES[1] and abs(intercept[0]) <= LARGEST_INTERCEPT):
        raise ExclusionError(Reason.BAD_RESCALE, f"slope {slope[0]:g}, intercept {intercept[0]:g}")
    return {}
