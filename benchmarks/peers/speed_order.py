"""Slice order as in notebooks of 2019: pandas, one Python function call per study."""

from typing import Any

import numpy as np
import pandas as pd


def arrange_pandas(headers: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compute order, gaps and the table of studies.

    Args:
        headers: Columns study, patient, slice, o_0..o_5, p_0..p_2.

    Returns:
        Slices with z_mm, order, gap_below_mm and gap_above_mm; and studies, one row per study.
    """
    o = headers[[f"o_{i}" for i in range(6)]].to_numpy()
    normal = np.cross(o[:, :3], o[:, 3:])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    place = (headers[["p_0", "p_1", "p_2"]].to_numpy() * normal).sum(axis=1).round(3)
    slices = headers[["study", "patient", "slice"]].assign(z_mm=place)
    slices = slices.groupby("study")[slices.columns.tolist()].apply(_ordered).reset_index(drop=True)
    studies = slices.groupby("study")[["z_mm", "gap_below_mm"]].apply(_summary).reset_index()
    return slices, studies


def _ordered(study: pd.DataFrame) -> pd.DataFrame:
    study = study.sort_values(["z_mm", "slice"])
    study["order"] = np.arange(len(study))
    study["gap_below_mm"] = study["z_mm"].diff()
    study["gap_above_mm"] = study["gap_below_mm"].shift(-1)
    return study


def _summary(study: pd.DataFrame) -> Any:
    gap = study["gap_below_mm"]
    return pd.Series({"slices": len(study), "spacing_mm": gap.median(), "largest_gap_mm": gap.max()})
