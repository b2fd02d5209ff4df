"""Slice positions: order, gaps and tilt, computed for a whole table at once.

The position of a slice is its ImagePositionPatient projected on the slice normal (DICOM PS3.3 C.7.6.2.1.1),
which points to +z; so gantry tilt has no effect and the lowest slice comes first.
"""

import polars as pl

from rsna_seq.imaging.wrap import suspects

_ROUND_MM = 3
_NEAR, _FAR = 0.7, 1.9
"""Shares of the gaps beside it: smaller ones are between interleaved passes, larger ones miss slices."""
_REPEATED = 2
"""So many such gaps make a pass: a single one is an irregular slice."""
_ONE_PLACE_MM = 0.1
_AXIAL_COSINE = 0.7
"""Slices whose normal deviates more than about 45 degrees from z are coronal or sagittal."""


def normal_exprs() -> list[pl.Expr]:
    """Components n_x, n_y, n_z of the slice normal, pointing to +z, from columns o_0 to o_5."""
    o = [pl.col(f"o_{i}") for i in range(6)]
    cross = [o[1] * o[5] - o[2] * o[4], o[2] * o[3] - o[0] * o[5], o[0] * o[4] - o[1] * o[3]]
    length = sum((c * c for c in cross), pl.lit(0.0)).sqrt()
    turn = pl.when(cross[2] < 0).then(-1.0).otherwise(1.0)
    return [(c / length * turn).alias(f"n_{axis}") for c, axis in zip(cross, "xyz", strict=True)]


def edges_expr() -> pl.Expr:
    """Which side of the patient the left and the top edge of an image show, from columns o_0 to o_5.

    Two letters of PS3.3 C.7.6.1.1.1 (R, L, A, P, H, F), the main direction of each axis: ``RA`` is a head as
    radiologists look at it. Null without an orientation.
    """
    return pl.concat_str(_edge(0), _edge(3)).alias("edges")


def _edge(first: int) -> pl.Expr:
    """The letter of the edge at which an axis of the image begins."""
    axis = [pl.col(f"o_{first + i}") for i in range(3)]
    most = pl.max_horizontal(*(a.abs() for a in axis))
    letter = pl.lit(None, pl.String())
    for a, (begin, end) in zip(reversed(axis), (("F", "H"), ("A", "P"), ("R", "L")), strict=True):
        side = pl.when(a > 0).then(pl.lit(begin)).otherwise(pl.lit(end))
        letter = pl.when(a.abs() == most).then(side).otherwise(letter)
    return letter


def place(headers: pl.DataFrame) -> pl.DataFrame:
    """Add ``z_mm``, ``tilt_deg``, ``axial`` and ``placed_by`` to headers.

    Args:
        headers: Columns o_0..o_5 (orientation), p_0..p_2 (position in mm), location, number; null if
            absent.

    Returns:
        The same rows. ``placed_by`` is the source of the order: position, location, number or nothing.
    """
    table = headers.with_columns(normal_exprs())
    along = sum((pl.col(f"p_{i}") * pl.col(f"n_{a}") for i, a in enumerate("xyz")), pl.lit(0.0))
    position = pl.coalesce(along, pl.col("p_2"))
    number = pl.col("number").cast(pl.Float64)
    return table.with_columns(
        z_mm=pl.coalesce(position, "location", number, pl.lit(0.0)).round(_ROUND_MM),
        tilt_deg=pl.col("n_z").clip(-1, 1).arccos().degrees(),
        axial=pl.col("n_z").fill_null(1.0) >= _AXIAL_COSINE,
        placed_by=pl.when(position.is_not_null())
        .then(pl.lit("position"))
        .when(pl.col("location").is_not_null())
        .then(pl.lit("location"))
        .when(number.is_not_null())
        .then(pl.lit("number"))
        .otherwise(pl.lit("nothing")),
    )


def order(slices: pl.DataFrame) -> pl.DataFrame:
    """Sort slices by study, pass and position, ties by SOPInstanceUID, and add ``order`` and both gaps.

    Args:
        slices: Columns study, pass, slice, frame, z_mm.
    """
    # a number per study, because rows are sorted faster by numbers than by names
    names = slices.select("study").unique().sort("study").with_row_index("rank")
    rank = slices.select("study").join(names, on="study", how="left", maintain_order="left")["rank"]
    table = slices[slices.select(pl.arg_sort_by(rank, "pass", "z_mm", "slice", "frame")).to_series()]
    # rows are sorted: the difference to the previous row is a gap if that row is of the same pass
    another = pl.col("study").ne_missing(pl.col("study").shift(1))
    first = another | pl.col("pass").ne_missing(pl.col("pass").shift(1))
    start = pl.when(another).then(pl.int_range(pl.len()))
    table = table.with_columns(
        gap_below_mm=pl.when(~first).then(pl.col("z_mm").diff()),
        order=(pl.int_range(pl.len()) - start.forward_fill()).cast(pl.Int32),
    )
    return table.with_columns(gap_above_mm=pl.col("gap_below_mm").shift(-1))


def flag(slices: pl.DataFrame) -> pl.DataFrame:
    """Add ``flags``, comma-separated names of unusual properties of a slice.

    Args:
        slices: Ordered slices with gaps, placed_by, contrast, lossy and rescale.
    """
    gap, before, after = pl.col("gap_below_mm"), pl.col("gap_below_mm").shift(1), pl.col("gap_above_mm")
    one_pass = gap.is_null().cum_sum()  # the lowest slice of a pass has no gap below; a number groups fast
    # a change of spacing on the way, such as 2.5 mm below and 5 mm above, is a plan and neither of both
    far = gap > _FAR * pl.max_horizontal(before, after, gap.median().over(one_pass))
    close = gap < _NEAR * pl.min_horizontal(before, after)
    interleaved = close & (close.sum().over(one_pass) >= _REPEATED)
    near = interleaved | (gap < _ONE_PLACE_MM)
    words = {
        "no_position": ~pl.col("placed_by").is_in(["position", "neighbours"]),
        "interpolated": pl.col("placed_by") == "neighbours",
        "overlap": near | near.shift(-1),
        "gap": far,
        "contrast": pl.col("contrast"),
        "lossy": pl.col("lossy"),
        "wrap_suspected": suspects(),
    }
    said = [pl.when(found).then(pl.lit(word)) for word, found in words.items()]
    return slices.with_columns(flags=pl.concat_str(said, separator=",", ignore_nulls=True))


def summarize(slices: pl.DataFrame) -> pl.DataFrame:
    """One row per study: slices, spacing by region and its median, tilt, passes, gaps.

    Args:
        slices: Ordered slices with gaps, tilt_deg and flags.
    """
    gap = pl.col("gap_below_mm")
    doubled = (gap < _ONE_PLACE_MM).any().cast(pl.Int16)
    studies = slices.group_by("study", maintain_order=True).agg(
        pl.len().cast(pl.Int32).alias("slices"),
        gap.median().alias("spacing_mm"),
        pl.col("tilt_deg").median().alias("tilt_deg"),
        (1 + pl.max_horizontal(pl.col("pass").max(), doubled)).cast(pl.Int16).alias("passes"),
        gap.max().alias("largest_gap_mm"),
        pl.col("flags").str.contains(r"\bgap\b").sum().cast(pl.Int32).alias("gaps"),
    )
    regions = studies.select("study").join(_regions(slices), on="study", how="left", maintain_order="left")
    return studies.insert_column(3, regions["spacing_regions"].fill_null(""))


def _regions(slices: pl.DataFrame) -> pl.DataFrame:
    """Runs of equal gaps of each study from below, such as ``12 x 2.5, 20 x 5.0``, rounded to half a mm."""
    rounded = (pl.col("gap_below_mm") * 2).round() / 2
    gaps = slices.select("study", gap=rounded).drop_nulls("gap")
    # runs of the whole table at once: a run-length encoding per study takes longer than everything else here
    begins = pl.any_horizontal(pl.col("study", "gap").ne_missing(pl.col("study", "gap").shift(1)))
    runs = gaps.with_row_index("row").filter(begins)
    length = pl.col("row").shift(-1, fill_value=len(gaps)) - pl.col("row")
    text = pl.concat_str(length, pl.lit(" x "), "gap").alias("spacing_regions")
    return runs.select("study", text).group_by("study").agg(pl.col("spacing_regions").str.join(", "))
