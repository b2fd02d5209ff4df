"""Select plainly valid CT slices: the checks of ``fields.header_of`` on a whole table of headers.

Headers that fail are not excluded, but read again one by one, which gives the reason.
"""

import polars as pl

from rsna_seq.imaging.headers.fields import (
    CT_CLASSES,
    FARTHEST_MM,
    LARGEST,
    LARGEST_COSINE,
    LARGEST_INTERCEPT,
    LOSSY_SYNTAXES,
    OPEN,
    SLOPES,
    SMALLEST,
    SPACING_MM,
    TEXTS,
    UNITS,
)

_LARGE = 2.0**31
_ASCII_SETS = (
    *("", "GB18030", "GBK", "ISO 2022 IR 6", "ISO 2022 IR 100"),
    *(f"ISO_IR {n}" for n in (6, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166, 192, 203)),
)
"""Values of SpecificCharacterSet (PS3.3 C.12.1.1.2) in which ASCII bytes are ASCII characters."""
_SEVERAL = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
"""Elements with several numbers."""
_NUMERIC = (
    *(f"{name}{i}" for name, count in _SEVERAL.items() for i in range(count)),
    *("SliceLocation", "InstanceNumber", "RescaleSlope", "RescaleIntercept", "NumberOfFrames"),
)
_NAMES = {
    **{"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "slice": "SOPInstanceUID"},
    **{"patient": "PatientID", "rows": "Rows", "columns": "Columns", "bits_stored": "BitsStored"},
    **{
        "transfer_syntax": "transfer_syntax",
        "kernel": "ConvolutionKernel",
        "description": "SeriesDescription",
    },
}

COLUMNS: dict[str, pl.DataType] = {
    **dict.fromkeys(("study", "series", "slice", "patient"), pl.String()),
    "frame": pl.Int32(),
    "image_type": pl.String(),
    **{f"p_{i}": pl.Float64() for i in range(3)},
    **{f"o_{i}": pl.Float64() for i in range(6)},
    "location": pl.Float64(),
    "number": pl.Int64(),
    "row_mm": pl.Float64(),
    "col_mm": pl.Float64(),
    "rows": pl.Int32(),
    "columns": pl.Int32(),
    "slope": pl.Float64(),
    "intercept": pl.Float64(),
    "bits_stored": pl.Int16(),
    "signed": pl.Boolean(),
    "photometric": pl.String(),
    "padding": pl.Int32(),
    "transfer_syntax": pl.String(),
    "pixel_offset": pl.Int64(),
    "kernel": pl.String(),
    "contrast": pl.Boolean(),
    "lossy": pl.Boolean(),
    "description": pl.String(),
}
"""Columns of a table of headers, as in ``fields.Header``; null if an element is absent."""
HEADERS: dict[str, pl.DataType] = {
    "file": pl.String(),
    "file_size": pl.Int64(),
    "file_mtime_ns": pl.Int64(),
    **COLUMNS,
}
"""COLUMNS with the file of each header."""


def plain_headers(table: pl.DataFrame) -> pl.DataFrame:
    """Keep the rows that are plainly valid CT slices.

    Args:
        table: Text columns by keyword, empty where absent; 16-bit columns by keyword, -1 where absent;
            ``pixels``, ``pixel_length``, ``transfer_syntax``, ``size`` of the file, ``at``.

    Returns:
        COLUMNS and ``at``.
    """
    parts = [
        pl.col(name).str.split_exact("\\", count - 1).struct.field(f"field_{i}").alias(f"{name}{i}")
        for name, count in _SEVERAL.items()
        for i in range(count)
    ]
    numbers = [pl.col(n).cast(pl.Float64, strict=False).alias(f"{n}_") for n in _NUMERIC]
    valid = [_is_valid(n) for n in _NUMERIC]
    cut = table.lazy().filter(_plain_texts()).with_columns(parts).with_columns(numbers)
    return cut.filter(valid).filter(_plain_numbers()).select(*_columns(), "at").collect()


def _is_valid(name: str) -> pl.Expr:
    """Whether numbers are plausible or all absent; it is invalid if only some of them are absent."""
    whole, value = pl.col(name.rstrip("0123456789")), pl.col(f"{name}_")
    good = value.abs() < _LARGE
    if name.startswith(("ImagePosition", "SliceLocation")):
        good = value.abs() <= FARTHEST_MM
    if name.startswith("ImageOrientation"):
        good = value.abs() <= LARGEST_COSINE
    if name == "InstanceNumber":
        good &= value == value.floor()
    return (whole == "") | good.fill_null(value=False)


def _plain_texts() -> pl.Expr:
    """Whether it is one CT image in ASCII with all identifiers; multiple values only where allowed."""
    slash = "\\"
    single = pl.concat_str([n for n in TEXTS if n not in {"ImageType", "ConvolutionKernel", *_SEVERAL}])
    counts = [
        (pl.col(n) == "") | (pl.col(n).str.count_matches(slash, literal=True) == c - 1)
        for n, c in _SEVERAL.items()
    ]
    padded = [
        ~pl.col(n).str.contains(" " + slash, literal=True)
        & ~pl.col(n).str.contains(slash + " ", literal=True)
        for n in ("ImageType", "ConvolutionKernel")
    ]
    return pl.all_horizontal(
        pl.col("Modality").is_in(["CT", ""]),
        pl.col("SOPClassUID").is_in(["", *CT_CLASSES]),
        pl.col("RescaleType").is_in(list(UNITS)),
        pl.col("SpecificCharacterSet").is_in(_ASCII_SETS),
        *(pl.col(n) != "" for n in ("SOPInstanceUID", "StudyInstanceUID")),
        pl.col("PhotometricInterpretation").is_in(["MONOCHROME1", "MONOCHROME2", ""]),
        ~single.str.contains(slash, literal=True),
        *counts,
        *padded,
    )


def _plain_numbers() -> pl.Expr:
    """Whether the pixels are 16-bit monochrome, of plausible size, complete, one frame, validly rescaled."""
    wanted = 2 * pl.col("Rows").cast(pl.Int64) * pl.col("Columns")
    there = pl.col("size") - pl.col("pixels")
    lengths = pl.col("pixel_length")
    whole = (there >= wanted) & ((lengths == -1) | lengths.is_between(wanted, there))
    return pl.all_horizontal(
        *(pl.col(n).is_between(SMALLEST, LARGEST) for n in ("Rows", "Columns")),
        pl.col("SamplesPerPixel").is_in([1, 0, -1]),
        pl.col("BitsAllocated") == 16,
        pl.col("BitsStored").is_between(8, 16),
        pl.col("NumberOfFrames_").fill_null(1) <= 1,
        pl.col("RescaleSlope_").abs().is_between(*SLOPES).fill_null(value=False),
        (pl.col("RescaleIntercept_").abs() <= LARGEST_INTERCEPT).fill_null(value=False),
        whole | ~pl.col("transfer_syntax").is_in(list(OPEN)),
    )


def _columns() -> list[pl.Expr]:
    """Make COLUMNS from the header values by keyword."""
    row, column = pl.col("PixelSpacing0_"), pl.col("PixelSpacing1_")
    spaced = row.is_between(*SPACING_MM) & column.is_between(*SPACING_MM)
    signed = pl.col("PixelRepresentation") == 1
    padding = pl.col("PixelPaddingValue")
    lossy = (pl.col("LossyImageCompression") == "01") | pl.col("transfer_syntax").is_in(list(LOSSY_SYNTAXES))
    photometric = pl.col("PhotometricInterpretation")
    known = _spans_a_plane()
    made = {
        **{new: pl.col(name) for new, name in _NAMES.items()},
        "frame": pl.lit(0),
        "image_type": pl.col("ImageType").str.to_uppercase(),
        **{f"p_{i}": pl.col(f"ImagePositionPatient{i}_") for i in range(3)},
        **{f"o_{i}": pl.when(known).then(f"ImageOrientationPatient{i}_") for i in range(6)},
        "location": pl.col("SliceLocation_"),
        "number": pl.col("InstanceNumber_"),
        "row_mm": pl.when(spaced).then(row),
        "col_mm": pl.when(spaced).then(column),
        "slope": pl.col("RescaleSlope_"),
        "intercept": pl.col("RescaleIntercept_"),
        "signed": signed,
        "photometric": pl.when(photometric == "").then(pl.lit("MONOCHROME2")).otherwise(photometric),
        "padding": pl.when(padding >= 0).then(
            pl.when(signed & (padding > 32767)).then(padding - 65536).otherwise(padding)
        ),
        "pixel_offset": pl.when(pl.col("transfer_syntax").is_in(list(OPEN))).then("pixels"),
        "contrast": pl.col("ContrastBolusAgent") != "",
        "lossy": lossy,
    }
    return [made[name].cast(kind).alias(name) for name, kind in COLUMNS.items()]


def _spans_a_plane() -> pl.Expr:
    """Whether the six direction cosines are orthogonal enough to have a normal."""
    o = [pl.col(f"ImageOrientationPatient{i}_") for i in range(6)]
    normal = (o[1] * o[5] - o[2] * o[4], o[2] * o[3] - o[0] * o[5], o[0] * o[4] - o[1] * o[3])
    return (normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2).sqrt().is_between(0.5, 2)
