"""The header fields that are read: one line for each DICOM element, which both header readers use.

A line of :data:`FIELDS` names an element, its columns, and how a value is made from it in two ways: from the
elements of one file (:mod:`rsna_seq.imaging.headers.single`, with pydicom), and as polars expressions over
thousands of files (:mod:`rsna_seq.imaging.headers.batch`). Tag, representation and number of values come from
pydicom's dictionary (PS3.6). The fast reader leaves values that are not plainly valid to the other one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

Values = Mapping[str, str]
"""Elements of a file as text, by keyword; and SYNTAX."""
Header = dict[str, Any]
"""Header of one slice: the columns of :data:`COLUMNS`; None where an element is absent or invalid."""
SYNTAX = "transfer_syntax"
"""The TransferSyntaxUID in Values, and its column."""
FARTHEST_MM = 5000.0
"""Positions farther from the scanner's origin are treated as missing."""
SPACING_MM = (0.01, 20.0)
"""Pixel spacings outside these bounds are treated as missing."""
LARGEST_COSINE = 2.0
"""Larger direction cosines mean a damaged header; valid ones are at most 1."""
LOSSY_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{i}" for i in (50, 51, 81))
"""JPEG baseline and extended, near-lossless JPEG-LS; for JPEG 2000 see LossyImageCompression."""
_LARGEST = 2.0**31 - 1
_TEXT_VRS = frozenset(("AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "ST", "TM", "UI"))


@dataclass(frozen=True)
class Field:
    """An element of the header, and the columns that it gives.

    Attributes:
        keyword: DICOM keyword.
        columns: Names and types of its columns; none for an element that is only checked.
        one: Values of the columns from the elements of one file.
        many: The same from a table: text by keyword, empty where absent; 16-bit integers by keyword, -1 where
            absent; and numbers, see :func:`number_of`.
        limit: Largest absolute value of its numbers.
        group: Functional group that holds it in multi-frame objects (PS3.3 C.7.6.16, C.8.15.3), if any.
        group_keyword: Its keyword there, if it has another one.
    """

    keyword: str
    columns: Mapping[str, pl.DataType]
    one: Callable[[Values], Sequence[Any]] = lambda _: ()
    many: Sequence[pl.Expr] = ()
    limit: float = _LARGEST
    group: str = ""
    group_keyword: str = ""


def number_of(keyword: str, at: int = 0) -> pl.Expr:
    """A number of a text element in a table, by its position in the element; null if it is none."""
    return pl.col(f"{keyword}_{at}")


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


def cross(o: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Slice normal: cross product of row and column direction, of numbers or of expressions."""
    return o[1] * o[5] - o[2] * o[4], o[2] * o[3] - o[0] * o[5], o[0] * o[4] - o[1] * o[3]


def _text(keyword: str, column: str, group: str = "") -> Field:
    """Text; empty if absent."""
    columns = {column: pl.String()}
    return Field(keyword, columns, lambda v: (v.get(keyword, ""),), (pl.col(keyword),), group=group)


def _short(keyword: str, column: str, kind: pl.DataType) -> Field:
    """A 16-bit integer that every valid image has."""
    return Field(keyword, {column: kind}, lambda v: (integer(v, keyword),), (pl.col(keyword),))


def _number(
    keyword: str, column: str, limit: float = _LARGEST, kind: type[float] = float, group: str = ""
) -> Field:
    """A number, ``float`` or ``int``; null if it is absent, invalid or above the limit."""

    def one(values: Values) -> tuple[float | None]:
        found = numbers(values, keyword, 1)
        return (kind(found[0]) if found and abs(found[0]) <= limit else None,)

    columns = {column: pl.Int64() if kind is int else pl.Float64()}
    return Field(keyword, columns, one, (number_of(keyword),), limit, group)


def _spacing(values: Values) -> tuple[float | None, float | None]:
    spacing = numbers(values, "PixelSpacing", 2) or (0.0, 0.0)
    valid = all(SPACING_MM[0] <= side <= SPACING_MM[1] for side in spacing)
    return (spacing[0], spacing[1]) if valid else (None, None)


def _spacings() -> list[pl.Expr]:
    sides = [number_of("PixelSpacing", i) for i in range(2)]
    valid = pl.all_horizontal(side.is_between(*SPACING_MM) for side in sides)
    return [pl.when(valid).then(side) for side in sides]


def _cosines() -> list[pl.Expr]:
    cosines = [number_of("ImageOrientationPatient", i) for i in range(6)]
    normal = cross(cosines)
    spans = (normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2).sqrt().is_between(0.5, 2)
    return [pl.when(spans).then(cosine) for cosine in cosines]


_SIGNED = pl.col("PixelRepresentation") == 1


def _padding(values: Values) -> tuple[int | None]:
    """PixelPaddingValue as stored in pixels: its VR does not always show whether it is signed."""
    found = numbers(values, "PixelPaddingValue", 1)
    value = int(found[0]) if found else None
    if value is None or not -32768 <= value <= 65535:
        return (None,)
    if integer(values, "PixelRepresentation") == 1:
        return (value - 65536 if value > 32767 else value,)
    return (value % 65536,)


def _paddings() -> pl.Expr:
    value = pl.col("PixelPaddingValue")
    stored = pl.when(_SIGNED & (value > 32767)).then(value - 65536).otherwise(value)
    return pl.when(value >= 0).then(stored)


_GREY, _PHOTOMETRIC = "MONOCHROME2", pl.col("PhotometricInterpretation")
_F64, _FLAG = pl.Float64(), pl.Boolean()
_PIXEL_VALUES = "PixelValueTransformationSequence"
_STORED = (
    _text("StudyInstanceUID", "study"),
    _text("SeriesInstanceUID", "series"),
    _text("SOPInstanceUID", "slice"),  # UID#N for a frame of a multi-frame object, N from 1
    _text("PatientID", "patient"),
    Field(
        *("PixelSpacing", {"row_mm": _F64, "col_mm": _F64}, _spacing, _spacings()),
        group="PixelMeasuresSequence",
    ),
    _short("Rows", "rows", pl.Int32()),
    _short("Columns", "columns", pl.Int32()),
    _number("RescaleSlope", "slope", group=_PIXEL_VALUES),
    _number("RescaleIntercept", "intercept", group=_PIXEL_VALUES),
    _short("BitsStored", "bits_stored", pl.Int16()),
    Field(
        "PixelRepresentation",
        {"signed": _FLAG},
        lambda v: (integer(v, "PixelRepresentation") == 1,),
        (_SIGNED,),
    ),
    Field(
        "PhotometricInterpretation",
        {"photometric": pl.String()},
        lambda v: (v.get("PhotometricInterpretation") or _GREY,),
        (pl.when(_PHOTOMETRIC == "").then(pl.lit(_GREY)).otherwise(_PHOTOMETRIC),),
    ),
    Field("PixelPaddingValue", {"padding": pl.Int32()}, _padding, (_paddings(),)),
)
"""Elements whose columns ``slices.parquet`` has."""
_INDEXED = (
    Field(
        "ImageType",
        {"image_type": pl.String()},
        lambda v: (v.get("ImageType", "").upper(),),
        (pl.col("ImageType").str.to_uppercase(),),
        group="CTImageFrameTypeSequence",
        group_keyword="FrameType",
    ),
    Field(
        "ImagePositionPatient",
        {f"p_{i}": _F64 for i in range(3)},
        lambda v: position(v) or (None,) * 3,
        [number_of("ImagePositionPatient", i) for i in range(3)],
        FARTHEST_MM,
        "PlanePositionSequence",
    ),
    Field(
        "ImageOrientationPatient",
        {f"o_{i}": _F64 for i in range(6)},
        lambda v: orientation(v) or (None,) * 6,
        _cosines(),
        LARGEST_COSINE,
        "PlaneOrientationSequence",
    ),
    _number("SliceLocation", "location", FARTHEST_MM),
    _number("InstanceNumber", "number", kind=int),
    _text("ConvolutionKernel", "kernel", group="CTReconstructionSequence"),
    Field(
        "ContrastBolusAgent",
        {"contrast": _FLAG},
        lambda v: (bool(v.get("ContrastBolusAgent")),),
        (pl.col("ContrastBolusAgent") != "",),
    ),
    Field(
        "LossyImageCompression",
        {"lossy": _FLAG},
        lambda v: (v.get("LossyImageCompression") == "01" or v[SYNTAX] in LOSSY_SYNTAXES,),
        ((pl.col("LossyImageCompression") == "01") | pl.col(SYNTAX).is_in(list(LOSSY_SYNTAXES)),),
    ),
    _text("SeriesDescription", "description"),
)
"""Elements by which ``index`` orders slices and chooses a series."""
_CHECKED = (
    Field("RescaleType", {}, group=_PIXEL_VALUES),
    *(
        Field(keyword, {})
        for keyword in (
            *("SOPClassUID", "Modality", "NumberOfFrames", "SpecificCharacterSet"),
            *("SamplesPerPixel", "BitsAllocated"),
        )
    ),
)
"""Elements that only decide whether an image is read."""
FIELDS = (*_STORED, *_INDEXED, *_CHECKED)
"""All elements that are read."""

_OF_FILE: dict[str, pl.DataType] = {
    SYNTAX: pl.String(),
    "pixel_offset": pl.Int64(),  # first byte of uncompressed pixels; None if they are compressed
}
STORED: dict[str, pl.DataType] = {
    "frame": pl.Int32(),  # number of the frame in its object, from 0
    **{name: kind for field in _STORED for name, kind in field.columns.items()},
    **_OF_FILE,
}
"""Columns of headers that ``slices.parquet`` has."""
COLUMNS: dict[str, pl.DataType] = STORED | {n: k for field in _INDEXED for n, k in field.columns.items()}
"""Columns of a table of headers."""
HEADERS: dict[str, pl.DataType] = {
    "file": pl.String(),
    "file_size": pl.Int64(),
    "file_mtime_ns": pl.Int64(),
    **COLUMNS,
}
"""COLUMNS with the file of each header."""

_VRS = {field.keyword: dictionary_VR(tag_for_keyword(field.keyword) or 0) for field in FIELDS}
SHORTS = tuple(keyword for keyword, vr in _VRS.items() if vr.startswith("US"))
"""Elements that are 16-bit integers."""
TEXTS = tuple(keyword for keyword in _VRS if keyword not in SHORTS)
"""Elements that are text."""
assert {_VRS[keyword] for keyword in TEXTS} <= _TEXT_VRS, "only text and 16-bit integers can be read"
SEVERAL = frozenset(k for k in TEXTS if "n" in dictionary_VM(tag_for_keyword(k) or 0))
"""Text elements that may have any number of values."""
COUNTS = {
    keyword: int(dictionary_VM(tag_for_keyword(keyword) or 0))
    for keyword in TEXTS
    if _VRS[keyword] in {"DS", "IS"} and keyword not in SEVERAL
}
"""Text elements that are numbers, and how many."""
WHOLE = frozenset(keyword for keyword in COUNTS if _VRS[keyword] == "IS")
"""Those that are integers."""
LIMITS = {field.keyword: field.limit for field in FIELDS}
"""Largest absolute value of the numbers of each element."""
