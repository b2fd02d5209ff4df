"""Select plainly valid CT slices: the checks of ``frame.header_of`` on a whole table of headers.

Headers that fail are not excluded, but read again one by one, which gives the reason.
"""

import polars as pl

from rsna_seq.imaging.headers.fields import (
    COLUMNS,
    COUNTS,
    FIELDS,
    LIMITS,
    SEVERAL,
    SYNTAX,
    TEXTS,
    WHOLE,
    number_of,
)
from rsna_seq.imaging.headers.frame import (
    CT_CLASSES,
    LARGEST,
    LARGEST_INTERCEPT,
    OPEN,
    SLOPES,
    SMALLEST,
    UNITS,
)

_ASCII_SETS = (
    *("", "GB18030", "GBK", "ISO 2022 IR 6", "ISO 2022 IR 100"),
    *(f"ISO_IR {n}" for n in (6, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166, 192, 203)),
)
"""Values of SpecificCharacterSet (PS3.3 C.12.1.1.2) in which ASCII bytes are ASCII characters."""
_SLASH = "\\"


def plain_headers(table: pl.DataFrame) -> pl.DataFrame:
    """Keep the rows that are plainly valid CT slices.

    Args:
        table: Text columns by keyword, empty where absent; 16-bit columns by keyword, -1 where absent;
            ``pixels``, ``pixel_length``, ``transfer_syntax``, ``size`` of the file, ``at``.

    Returns:
        COLUMNS and ``at``.
    """
    found = table.lazy().filter(_plain_texts()).with_columns(_numbers())
    valid = [_is_valid(keyword, i) for keyword, count in COUNTS.items() for i in range(count)]
    return found.filter(valid).filter(_plain_numbers()).select(*_columns(), "at").collect()


def _numbers() -> list[pl.Expr]:
    """The numbers of numeric elements, under the names of ``number_of``."""
    return [
        (
            pl.col(keyword).str.split_exact(_SLASH, count - 1).struct.field(f"field_{i}")
            if count > 1
            else pl.col(keyword)
        )
        .cast(pl.Float64, strict=False)
        .alias(number_of(keyword, i).meta.output_name())
        for keyword, count in COUNTS.items()
        for i in range(count)
    ]


def _is_valid(keyword: str, at: int) -> pl.Expr:
    """Whether a number is plausible, or its element is absent."""
    value = number_of(keyword, at)
    good = value.abs() <= LIMITS[keyword]
    if keyword in WHOLE:
        good &= value == value.floor()
    return (pl.col(keyword) == "") | good.fill_null(value=False)


def _plain_texts() -> pl.Expr:
    """Whether it is one CT image in ASCII with all identifiers; multiple values only where allowed."""
    several = {keyword: count for keyword, count in COUNTS.items() if count > 1}
    single = pl.concat_str([n for n in TEXTS if n not in {*SEVERAL, *several}])
    counts = [
        (pl.col(n) == "") | (pl.col(n).str.count_matches(_SLASH, literal=True) == c - 1)
        for n, c in several.items()
    ]
    padded = [
        ~pl.col(n).str.contains(" " + _SLASH, literal=True)
        & ~pl.col(n).str.contains(_SLASH + " ", literal=True)
        for n in SEVERAL
    ]
    return pl.all_horizontal(
        pl.col("Modality").is_in(["CT", ""]),
        pl.col("SOPClassUID").is_in(["", *CT_CLASSES]),
        pl.col("RescaleType").is_in(list(UNITS)),
        pl.col("SpecificCharacterSet").is_in(_ASCII_SETS),
        *(pl.col(n) != "" for n in ("SOPInstanceUID", "StudyInstanceUID")),
        pl.col("PhotometricInterpretation").is_in(["MONOCHROME1", "MONOCHROME2", ""]),
        ~single.str.contains(_SLASH, literal=True),
        *counts,
        *padded,
    )


def _plain_numbers() -> pl.Expr:
    """Whether the pixels are 16-bit monochrome, of plausible size, complete, one frame, validly rescaled."""
    wanted = 2 * pl.col("Rows").cast(pl.Int64) * pl.col("Columns")
    there = pl.col("size") - pl.col("pixels")
    lengths = pl.col("pixel_length")
    whole = (there >= wanted) & ((lengths == -1) | lengths.is_between(wanted, there))
    slope, intercept = number_of("RescaleSlope"), number_of("RescaleIntercept")
    return pl.all_horizontal(
        *(pl.col(n).is_between(SMALLEST, LARGEST) for n in ("Rows", "Columns")),
        pl.col("SamplesPerPixel").is_in([1, 0, -1]),
        pl.col("BitsAllocated") == 16,
        pl.col("BitsStored").is_between(8, 16),
        number_of("NumberOfFrames").fill_null(1) <= 1,
        slope.abs().is_between(*SLOPES).fill_null(value=False),
        (intercept.abs() <= LARGEST_INTERCEPT).fill_null(value=False),
        whole | ~pl.col(SYNTAX).is_in(list(OPEN)),
    )


def _columns() -> list[pl.Expr]:
    """Make COLUMNS from the header values by keyword."""
    made = {name: value for field in FIELDS for name, value in zip(field.columns, field.many, strict=True)}
    made["frame"] = pl.lit(0)
    made[SYNTAX] = pl.col(SYNTAX)
    made["pixel_offset"] = pl.when(pl.col(SYNTAX).is_in(list(OPEN))).then("pixels")
    return [made[name].cast(kind).alias(name) for name, kind in COLUMNS.items()]
