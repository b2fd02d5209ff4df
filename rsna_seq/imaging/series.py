"""Select the slices of a study: merge duplicates, choose one axial series, and record why."""

import polars as pl

from rsna_seq.errors import UsageError
from rsna_seq.reasons import Action, Reason

_BONE = r"(?i)\b(bone|sharp|edge|[BHJU][rfv]?[67]\d[a-z]?|FC[38]\d|lung)\b"
"""Sharp kernels: bone reconstructions of the large vendors, in which soft tissue is noisy."""


_FUNCTIONAL = r"PERFUSION|\\(RCBF|RCBV|MTT|TTP|TMAX)\b"
"""Values of ImageType of perfusion maps, which are not in HU."""


def merge_duplicates(slices: pl.DataFrame) -> tuple[pl.DataFrame, list[dict[str, object]]]:
    """Merge files with the same SOPInstanceUID and the same bytes; exclude both if the bytes differ.

    Args:
        slices: Headers with ``slice``, ``frame``, ``file`` and, if duplicated, ``digest`` of the file.

    Returns:
        The remaining slices, and rows of QUARANTINE.
    """
    if slices["slice"].n_unique() == len(slices):
        return slices, []
    twice = pl.col("slice").is_duplicated()  # frame 2 of UID also conflicts with a file whose UID is UID#2
    clash = twice & (pl.col("digest").n_unique().over("slice") > 1)
    copy = twice & ~clash & ~pl.col("slice").is_first_distinct()
    marked = slices.with_columns(clash=clash, copy=copy)
    excluded = [_row(r, Reason.DUPLICATE_UID, Action.QUARANTINED, "") for r in _rows(marked, "clash")]
    excluded += [_row(r, Reason.DUPLICATE_FILE, Action.MERGED, "") for r in _rows(marked, "copy")]
    return marked.filter(~pl.col("clash") & ~pl.col("copy")).drop("clash", "copy"), excluded


def choose_series(slices: pl.DataFrame, wanted: str | None) -> tuple[pl.DataFrame, list[dict[str, object]]]:
    """Keep one series per study: axial, soft kernel before bone, without contrast agent, most slices.

    Args:
        slices: Headers with positions: study, series, patient, image_type, axial, kernel, description.
        wanted: A SeriesInstanceUID that is selected in the study that contains it.

    Returns:
        The remaining slices, with ``grounds``, and rows of QUARANTINE.
    """
    first = slices.with_columns(reason=_unfit())
    excluded = [
        _row(r, Reason(r["reason"]), Action.SKIPPED, "")
        for r in first.drop_nulls("reason").iter_rows(named=True)
    ]
    fit = first.filter(pl.col("reason").is_null()).drop("reason")
    counts = fit.group_by("study").agg(pl.col("patient", "series").n_unique())
    several = counts.filter(pl.col("patient") > 1)["study"]
    mixed = pl.col("study").is_in(several.implode()) if len(several) else pl.lit(value=False)
    for row in fit.filter(mixed).iter_rows(named=True):
        excluded.append(_row(row, Reason.MIXED_PATIENTS, Action.SKIPPED, "the whole study is excluded"))
    if (counts["series"] == 1).all():
        return fit.filter(~mixed).with_columns(grounds=pl.lit("the only series")), excluded
    ranked = _rank(fit.filter(~mixed), wanted)
    chosen = ranked.filter(pl.col("place") == 0)
    for row in ranked.filter(pl.col("place") > 0).iter_rows(named=True):
        excluded.append(_row(row, Reason.OTHER_SERIES, Action.SKIPPED, row["series"]))
    return chosen.drop("place", "count", "bone", "agent"), excluded


def must_be_found(series: str | None, headers: pl.DataFrame, slices: pl.DataFrame) -> None:
    """Refuse a requested SeriesInstanceUID that is not used in any study.

    Args:
        series: The SeriesInstanceUID, or None if the rules select a series.
        headers: All headers that were read, with ``series``.
        slices: The remaining slices, with ``series``.

    Raises:
        UsageError: No study contains the series, or none of its slices can be used.
    """
    if series is None or headers.is_empty() or series in slices["series"]:
        return
    known = series in headers["series"]
    why = "has no usable slice" if known else "was not found in any study"
    raise UsageError(f"index.series: {series!r} {why}; remove this key to select a series by the rules")


def _unfit() -> pl.Expr:
    """Reason why a slice is not part of an axial reconstruction; null if it is."""
    kind = pl.col("image_type")
    return (
        pl.when(kind.str.contains("LOCALIZER"))
        .then(pl.lit(str(Reason.LOCALIZER)))
        .when(kind.str.contains(_FUNCTIONAL))
        .then(pl.lit(str(Reason.DERIVED_IMAGE)))
        .when(kind.str.contains("SECONDARY"))
        .then(pl.lit(str(Reason.DERIVED_IMAGE)))
        .when(~pl.col("axial"))
        .then(pl.lit(str(Reason.NOT_AXIAL)))
        .otherwise(None)
    )


def _rank(slices: pl.DataFrame, wanted: str | None) -> pl.DataFrame:
    """Rank the series of each study: ``place`` 0 is used, and ``grounds`` gives the reason."""
    words = pl.col("kernel") + pl.lit(" ") + pl.col("description")
    series = slices.group_by("study", "series").agg(
        count=pl.len(), bone=words.str.contains(_BONE).any(), agent=pl.col("contrast").any()
    )
    series = series.with_columns(wish=pl.col("series") == (wanted or ""))
    series = series.sort(
        ["study", "wish", "bone", "agent", "count", "series"],
        descending=[False, True, False, False, True, False],
    )
    grounds = (
        pl.when(pl.len().over("study") == 1)
        .then(pl.lit("the only series"))
        .when("wish")
        .then(pl.lit("as asked"))
        .when(~pl.col("bone") & pl.col("bone").any().over("study"))
        .then(pl.lit("soft kernel before bone"))
        .when(~pl.col("agent") & pl.col("agent").any().over("study"))
        .then(pl.lit("without contrast agent before with"))
        .otherwise(pl.lit("most slices"))
    )
    series = series.with_columns(place=pl.int_range(pl.len()).over("study"), grounds=grounds).drop("wish")
    return slices.join(series, on=["study", "series"], how="left", maintain_order="left")


def _rows(table: pl.DataFrame, mark: str) -> list[dict[str, object]]:
    return table.filter(pl.col(mark)).to_dicts()


def _row(row: dict[str, object], reason: Reason, action: Action, detail: object) -> dict[str, object]:
    known = {"study": row["study"], "slice": row["slice"], "z_mm": row.get("z_mm")}
    return {"file": row["file"], "action": str(action), "reason": str(reason), "detail": str(detail), **known}
