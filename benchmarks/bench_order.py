"""Benchmark of slice order, gaps, passes and folds at the size of the competition, against pandas."""

from typing import Any

import numpy as np
import polars as pl
from harness import Bench, Options, Row, main, peak_mb, race

from rsna_seq.config import IndexConfig
from rsna_seq.folds import assign
from rsna_seq.imaging.geometry import flag, order, place, summarize
from rsna_seq.imaging.headers.fields import COLUMNS
from rsna_seq.imaging.passes import split_passes
from rsna_seq.imaging.series import choose_series, merge_duplicates
from rsna_seq.labels import CLASSES

_SLICES = 874_035
"""Number of images in the three data sets of the competition."""
_SECONDS, _MB = 4.0, 2000.0
_CONSTANT: dict[str, Any] = {
    "image_type": "ORIGINAL\\PRIMARY\\AXIAL",
    "photometric": "MONOCHROME2",
    "kernel": "H30s",
    "description": "HEAD",
    "transfer_syntax": "1.2.840.10008.1.2.1",
    **dict.fromkeys(("row_mm", "col_mm"), 0.49),
    **dict.fromkeys(("rows", "columns"), 512),
    "slope": 1.0,
    "intercept": -1024.0,
    "bits_stored": 16,
    "signed": True,
    "pixel_offset": 1000,
    "frame": 0,
    **dict.fromkeys(("contrast", "lossy"), False),
}
"""Header values that are equal for all slices."""


def arrange(headers: pl.DataFrame, patients: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Run the steps of ``index`` after reading headers; return slices, studies and folds."""
    cfg = IndexConfig()
    unique, _ = merge_duplicates(headers.sort("file", "frame"))
    chosen, _ = choose_series(place(unique), cfg.series)
    slices = flag(order(split_passes(chosen)))
    return slices, summarize(slices), assign(patients, cfg, seed=0)


def measure(options: Options) -> list[Row]:
    """Measure all rows."""
    headers, patients = draw_headers(options.size)
    slices, studies, _ = arrange(headers, patients)
    memory = peak_mb()
    from peers.speed_order import arrange_pandas

    theirs = headers.select("study", "patient", "slice", r"^[op]_\d$").to_pandas()
    assert_same(slices, studies, *(pl.from_pandas(t) for t in arrange_pandas(theirs)))
    runs = {"ours": lambda: arrange(headers, patients), "pandas": lambda: arrange_pandas(theirs)}
    seconds = race(runs, options, rounds={"pandas": 2})
    rate = {name: options.size / s for name, s in seconds.items()}
    what, whole = "slices ordered, in folds", options.size >= _SLICES
    return [
        Row(what, "pandas groupby/apply", "slices/s", rate["ours"], rate["pandas"], 20.0),
        Row(what, "limit", "s", seconds["ours"], None, _SECONDS if whole else None, "most"),
        Row(what, "limit", "MB", memory, None, _MB if whole else None, "most", note="peak of the process"),
    ]


def draw_headers(slices: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Generate headers, in the order of random file names, and the labels of the patients."""
    random = np.random.default_rng(0)
    values = {**dict.fromkeys(COLUMNS), **_CONSTANT, **_geometry(slices, random)}
    table = pl.select(
        (pl.Series(c, values[c]) if isinstance(values[c], np.ndarray | pl.Series) else pl.lit(values[c]))
        .cast(kind)
        .alias(c)
        for c, kind in COLUMNS.items()
    )
    table = table.with_columns(file=pl.col("slice") + ".dcm", digest=pl.lit(None, pl.String)).sort("file")
    return table, _patients(table["patient"].unique(maintain_order=True), random)


def _geometry(slices: int, random: np.random.Generator) -> dict[str, Any]:
    """Generate ids and positions of studies with typical length, spacing and gantry tilt."""
    counts = random.integers(24, 57, slices // 24 + 1)
    counts = counts[: int(np.searchsorted(np.cumsum(counts), slices)) + 1]
    counts[-1] -= counts.sum() - slices
    study = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(slices) - np.repeat(np.cumsum(counts) - counts, counts)
    tilt = np.radians(random.uniform(0, 25, len(counts)))[study]
    along = number * 5.0 + random.uniform(-100, 100, len(counts))[study]
    corner = (-125.0 + 0 * along, -125 - along * np.sin(tilt), along * np.cos(tilt))
    cosines = (1.0, 0.0, 0.0, 0.0, np.cos(tilt), np.sin(tilt))
    return {
        "study": _ids(study, 10),
        "series": _ids(study, 10),
        "slice": _ids(random.permutation(slices), 9),
        "patient": _ids(study * 18 // 20, 8),
        **{f"p_{i}": value for i, value in enumerate(corner)},
        **{f"o_{i}": value for i, value in enumerate(cosines)},
        "location": along,
        "number": number,
    }


def _ids(numbers: np.ndarray, digits: int) -> pl.Series:
    """Return ids in the format of the competition."""
    return pl.select("ID_" + pl.Series(numbers).cast(pl.String).str.zfill(digits)).to_series()


def _patients(names: pl.Series, random: np.random.Generator) -> pl.DataFrame:
    """Generate labels of patients with realistic prevalences."""
    shares = (0.012, 0.2, 0.15, 0.2, 0.2, 0.41)
    marks = {c: (random.random(len(names)) < s).astype(np.int8) for c, s in zip(CLASSES, shares, strict=True)}
    return pl.DataFrame({"patient": names, **marks})


def assert_same(
    slices: pl.DataFrame, studies: pl.DataFrame, theirs: pl.DataFrame, summary: pl.DataFrame
) -> None:
    """Assert equal order, positions, gaps and studies."""
    columns = ["study", "slice", "order", "z_mm", "gap_below_mm", "gap_above_mm"]
    mine = slices.select(columns).sort("slice")
    other = theirs.with_columns(pl.col("order").cast(pl.Int32)).select(columns).fill_nan(None).sort("slice")
    assert mine.select(columns[:3]).equals(other.select(columns[:3]))
    for name in columns[3:]:
        assert mine[name].null_count() == other[name].null_count()
        assert (mine[name] - other[name]).abs().max() < 2e-3, name
    both = studies.join(summary, on="study", suffix="_theirs")
    assert len(both) == len(studies) == len(summary)
    assert (both["slices"] == both["slices_theirs"]).all()
    assert (both["largest_gap_mm"] - both["largest_gap_mm_theirs"].fill_nan(None)).abs().max() < 2e-3


if __name__ == "__main__":
    raise SystemExit(main(Bench("order", "slices", _SLICES, 4000, measure)))
