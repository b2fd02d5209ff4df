"""Benchmark of the stacker's features against pandas."""

import numpy as np
import polars as pl
from harness import Bench, Options, Row, main, race
from peers.speed_features import features_pandas

from rsna_seq.config import StackConfig
from rsna_seq.labels import CLASSES
from rsna_seq.stacking.features import stack_features

_COLUMNS = [f"{source}_{c}" for source in ("cnn", "seq") for c in CLASSES]


def measure(options: Options) -> list[Row]:
    """Measure all rows."""
    table, neighbours = draw_table(options.size), StackConfig().neighbours
    theirs = table.to_pandas()
    assert_same(
        stack_features(table, neighbours), pl.from_pandas(features_pandas(theirs, _COLUMNS, neighbours))
    )
    runs = {
        "ours": lambda: stack_features(table, neighbours),
        "pandas": lambda: features_pandas(theirs, _COLUMNS, neighbours),
    }
    seconds = race(runs, options, rounds={"pandas": 3})
    rate = {name: options.size / s for name, s in seconds.items()}
    return [
        Row("features of the stack", "pandas groupby/shift", "slices/s", rate["ours"], rate["pandas"], 20.0)
    ]


def draw_table(slices: int) -> pl.DataFrame:
    """Generate logits and geometry of studies of typical length, in the format of ``join_logits``."""
    random = np.random.default_rng(0)
    counts = random.integers(24, 57, slices // 24 + 1)
    study = np.repeat(np.arange(len(counts)), counts)[:slices]
    table = pl.DataFrame(
        {
            "study": pl.select("ID_" + pl.Series(study).cast(pl.String).str.zfill(10)).to_series(),
            "net": pl.Series(study % 5, dtype=pl.Int16),
            "cross": pl.Series(study // 5 % 5, dtype=pl.Int16),
            **{c: random.normal(-3, 2, slices) for c in _COLUMNS},
        }
    )
    table = table.with_columns(slab=pl.int_range(pl.len(), dtype=pl.Int32).over("study"))
    gap = pl.col("z_mm").diff().over("study")
    return table.with_columns(z_mm=5.0 * pl.col("slab")).with_columns(
        gap_below_mm=gap, gap_above_mm=gap.shift(-1).over("study")
    )


def assert_same(ours: pl.DataFrame, theirs: pl.DataFrame) -> None:
    """Assert equal columns and values, with a relative tolerance of 1e-6."""
    assert set(ours.columns) == set(theirs.columns)
    for name in ours.columns:
        mine, other = ours[name], theirs[name].fill_nan(None)
        assert mine.null_count() == other.null_count(), name
        scale = max(1.0, float(mine.abs().max() or 0))  # type: ignore[arg-type]
        assert float((mine - other).abs().max() or 0) <= 1e-6 * scale, name  # type: ignore[arg-type]


if __name__ == "__main__":
    raise SystemExit(main(Bench("stack", "slices", 100_000, 2000, measure)))
