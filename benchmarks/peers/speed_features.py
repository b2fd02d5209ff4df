"""The stacker's features as in notebooks of 2019: pandas groupby and shift, column by column."""

import numpy as np
import pandas as pd

GROUP = ["study", "net", "cross"]
_SPAN = 3


def features_pandas(table: pd.DataFrame, columns: list[str], neighbours: int) -> pd.DataFrame:
    """Compute neighbours, running means and maxima in both directions, study statistics, position and gaps.

    Args:
        table: GROUP, ``columns``, z_mm and both gaps; sorted by group and slab.
        columns: Names of the columns with logits.
        neighbours: Neighbouring slices on each side.
    """
    found: dict[str, pd.Series] = {name: table[name] for name in columns}
    grouped = table.groupby(GROUP, sort=False)
    for name in columns:
        column = grouped[name]
        for k in range(-neighbours, neighbours + 1):
            if k:
                found[f"{name}@{-k:+d}"] = column.shift(k)
        found |= _running(table, name)
    count = grouped["z_mm"].transform("size")
    found["position"] = grouped.cumcount() / (count - 1).clip(lower=1)
    found["slices"] = count
    found |= {name: table[name] for name in ("gap_below_mm", "gap_above_mm")}
    found["extent_mm"] = grouped["z_mm"].transform("max") - grouped["z_mm"].transform("min")
    return pd.DataFrame(found).astype(np.float32)


def _running(table: pd.DataFrame, name: str) -> dict[str, pd.Series]:
    """Compute running statistics in both directions and study statistics of one column."""
    column = table.groupby(GROUP, sort=False)[name]
    backward = table[::-1].groupby(GROUP, sort=False)[name]
    return {
        f"{name}:mean_up": column.rolling(_SPAN, min_periods=1).mean().droplevel(GROUP),
        f"{name}:mean_down": backward.rolling(_SPAN, min_periods=1).mean().droplevel(GROUP),
        f"{name}:max_up": column.cummax(),
        f"{name}:max_down": backward.cummax(),
        f"{name}:max": column.transform("max"),
        f"{name}:mean": column.transform("mean"),
        f"{name}:upper": column.transform(_upper),
    }


def _upper(values: pd.Series) -> float:
    """Return the upper quartile as one of the values (nearest rank, halves rounded up)."""
    return float(np.sort(values.to_numpy())[int(0.75 * (len(values) - 1) + 0.5)])
