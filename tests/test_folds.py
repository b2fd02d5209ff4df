"""Folds: stratified, crossed, independent of the order of patients."""

import numpy as np
import polars as pl
import pytest

from rsna_seq.config import IndexConfig
from rsna_seq.folds import assign
from rsna_seq.labels import CLASSES

CFG = IndexConfig(folds=2, cross_folds=2, holdout=0)


def _patients(n: int, seed: int) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    marks = random.random((n, 6)) < np.array([0.03, 0.2, 0.1, 0.2, 0.2, 0.4])
    return pl.DataFrame(
        {"patient": [f"P{i}" for i in range(n)]}
        | {c: marks[:, k].astype(np.int8) for k, c in enumerate(CLASSES)}
    )


def test_folds_spread_every_class_and_cross_each_other() -> None:
    patients = _patients(400, 0)
    cfg = IndexConfig(folds=5, cross_folds=4, holdout=0.1)
    folds = patients.join(assign(patients, cfg, 7), on="patient")
    assert (folds["fold"] == -1).sum() == 40
    for name in CLASSES:
        counts = folds.filter(pl.col("fold") >= 0).group_by("fold").agg(pl.col(name).sum())[name]
        assert counts.max() - counts.min() <= 2
    cells = folds.filter(pl.col("fold") >= 0).group_by("fold", "cross_fold").len()["len"]
    assert len(cells) == 20
    assert cells.max() - cells.min() <= 3
    assert (folds.filter(pl.col("fold") == -1)["cross_fold"] == -1).all()


def test_folds_depend_on_the_seed_and_not_on_the_order_of_patients() -> None:
    patients, cfg = _patients(60, 1), IndexConfig(folds=3, cross_folds=3)
    one, other = (assign(p, cfg, 7).sort("patient") for p in (patients, patients.reverse()))
    assert one.equals(other)
    assert not one.equals(assign(patients, cfg, 8).sort("patient"))


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_tiny_sets_get_folds_too(n: int) -> None:
    folds = assign(_patients(n, 2), IndexConfig(folds=5, cross_folds=5, holdout=0.1), 0)
    assert len(folds) == n
    assert folds["fold"].max() >= 0
