"""A planned change of spacing is normal; overlapping passes, duplicate positions and gaps are flagged."""

from itertools import accumulate

import polars as pl
import pytest

from rsna_seq.imaging.geometry import edges_expr, flag, order, summarize

STUDIES = {
    "2.5 mm, then 5 mm": ([2.5] * 12 + [5.0] * 20, {""}, "12 x 2.5, 20 x 5.0"),
    "5 mm, 2.5 mm, 5 mm": ([5.0] * 9 + [2.5] * 5 + [5.0] * 3, {""}, "9 x 5.0, 5 x 2.5, 3 x 5.0"),
    "two interleaved passes": ([1.8, 0.7] * 10 + [2.5] * 5, {"", "overlap"}, None),
    "two slices at one position": ([5.0, 5.0, 0.0, 5.0, 5.0], {"", "overlap"}, "2 x 5.0, 1 x 0.0, 2 x 5.0"),
    "missing slices": ([5.0, 5.0, 25.0, 5.0], {"", "gap"}, "2 x 5.0, 1 x 25.0, 1 x 5.0"),
    "one irregular slice": ([5.0, 3.0, 5.0, 5.0], {""}, None),
    "one slice": ([], {""}, ""),
}


def _slices(name: str, gaps: list[float]) -> list[dict[str, object]]:
    return [
        {
            **{"study": name, "pass": 0, "slice": f"{name}{i:02d}", "frame": 0, "z_mm": z, "tilt_deg": 0.0},
            **{"placed_by": "position", "contrast": False, "lossy": False, "bits_stored": 16, "signed": True},
            **{"intercept": -1024.0, "slope": 1.0},
        }
        for i, z in enumerate(accumulate([0.0, *gaps]))
    ]


@pytest.fixture(scope="module")
def flagged() -> pl.DataFrame:
    """All studies in one table: what is flagged in one must not depend on the others."""
    rows = [row for name, (gaps, _, _) in STUDIES.items() for row in _slices(name, gaps)]
    return flag(order(pl.DataFrame(rows).with_columns(pl.col("pass").cast(pl.Int16))))


@pytest.mark.parametrize("name", STUDIES)
def test_flags_and_regions_of_spacing(flagged: pl.DataFrame, name: str) -> None:
    gaps, flags, regions = STUDIES[name]
    mine = flagged.filter(pl.col("study") == name)
    assert set(mine["flags"]) == flags
    summary = summarize(mine)
    if regions is not None:
        assert summary["spacing_regions"].to_list() == [regions]
    assert summary["spacing_mm"].to_list() == [pl.Series(gaps, dtype=pl.Float64).median()]


@pytest.mark.parametrize(
    ("cosines", "edges"),
    [
        ([1, 0, 0, 0, 1, 0], "RA"),
        ([1, 0, 0, 0, 0.94, -0.34], "RA"),  # gantry tilt
        ([-1, 0, 0, 0, 1, 0], "LA"),  # mirrored
        ([-1, 0, 0, 0, -1, 0], "LP"),  # turned, or a patient on the belly
        ([0, 1, 0, 0, 0, -1], "AH"),  # sagittal
        ([None] * 6, None),
    ],
)
def test_edges_name_the_side_of_the_patient(cosines: list[float | None], edges: str | None) -> None:
    table = pl.DataFrame(
        {f"o_{i}": [value] for i, value in enumerate(cosines)},
        schema_overrides={f"o_{i}": pl.Float64 for i in range(6)},
    )
    assert table.select(edges_expr()).rows() == [(edges,)]
