"""Folds by patient: stratified on the rare classes, crossed between stages, with held-out patients.

Source of the method: Sechidis, Tsoumakas & Vlahavas, On the Stratification of Multi-label Data, ECML 2011,
with the patient in place of the sample.
"""

import hashlib

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.config import IndexConfig
from rsna_seq.errors import IntegrityError
from rsna_seq.labels import CLASSES

HELD_OUT = -1
"""Fold of held-out patients, which no stage uses; the fold of patients without labels is null."""


def in_folds(column: str = "fold") -> pl.Expr:
    """Rows of patients for training: with labels and not held out."""
    return pl.col(column) > HELD_OUT


def held_out(column: str = "fold") -> pl.Expr:
    """Rows of held-out patients, which no stage uses."""
    return pl.col(column) == HELD_OUT


def labelled_rows(column: str = "fold") -> pl.Expr:
    """Rows of patients with labels."""
    return pl.col(column).is_not_null()


def assign(patients: pl.DataFrame, cfg: IndexConfig, seed: int) -> pl.DataFrame:
    """Assign a fold and a crossed fold to every patient.

    Args:
        patients: Column patient, unique, and six label columns: 1 where any of the patient's slices has it.
        cfg: Number of folds, fraction of patients held out.
        seed: Seed for breaking ties; the result does not depend on the order of the rows.

    Returns:
        Columns patient, fold and cross_fold; both folds are -1 for held-out patients.
    """
    shuffled = patients.with_columns(at=pl.Series([_hash(p, seed) for p in patients["patient"]])).sort("at")
    marks = shuffled.select(CLASSES).to_numpy().astype(bool)
    fold = np.full(len(shuffled), -1)
    seen = np.ones(len(shuffled), dtype=bool)
    if cfg.holdout > 0:
        seen = spread(marks, np.array([cfg.holdout, 1 - cfg.holdout])) == 1
    fold[seen] = spread(marks[seen], np.full(cfg.folds, 1 / cfg.folds))
    cross = np.full(len(shuffled), -1)
    for k in range(cfg.folds):
        inside = fold == k
        # each fold starts at another crossed fold, so that remainders are spread evenly
        share = spread(marks[inside], np.full(cfg.cross_folds, 1 / cfg.cross_folds))
        cross[inside] = (share + k) % cfg.cross_folds
    return shuffled.select(
        "patient", fold=pl.Series(fold, dtype=pl.Int16), cross_fold=pl.Series(cross, dtype=pl.Int16)
    )


def spread(marks: NDArray[np.bool_], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Distribute rows over parts so that each part gets its fraction of every label, rarest label first.

    Args:
        marks: (row, label) whether the row has the label.
        shares: (part,) fractions that sum to one.

    Returns:
        (row,) number of the part of each row.
    """
    part = np.full(len(marks), -1)
    room = shares * len(marks)
    wanted = shares[:, None] * marks.sum(axis=0)[None]
    while (part == -1).any():
        left = part == -1
        counts = marks[left].sum(axis=0)
        if not counts.any():
            break
        rarest = int(np.argmin(np.where(counts > 0, counts, np.iinfo(np.int64).max)))
        for row in np.flatnonzero(left & marks[:, rarest]):
            _put(int(row), int(np.lexsort((-room, -wanted[:, rarest]))[0]), part, marks, room, wanted)
    for row in np.flatnonzero(part == -1):
        _put(int(row), int(np.argmax(room)), part, marks, room, wanted)
    return part


def must_keep_patients_whole(table: pl.DataFrame) -> None:
    """Refuse folds that split a patient, since slices of one patient in two folds would leak information.

    Args:
        table: Columns patient, fold, cross_fold.

    Raises:
        IntegrityError: A patient is in more than one fold, or in more than one crossed fold.
    """
    cut = table.group_by("patient").agg(pl.struct("fold", "cross_fold").n_unique().alias("folds"))
    count = len(cut.filter(pl.col("folds") > 1))
    if count:
        raise IntegrityError(
            f"folds: {count:,} patients are in more than one fold; index assigns whole patients, so the "
            "table was edited after index wrote it. Run index again"
        )


def _put(
    row: int,
    chosen: int,
    part: NDArray[np.int64],
    marks: NDArray[np.bool_],
    room: NDArray[np.float64],
    wanted: NDArray[np.float64],
) -> None:
    part[row] = chosen
    room[chosen] -= 1
    wanted[chosen] -= marks[row]


def _hash(patient: str, seed: int) -> str:
    return hashlib.sha256(f"{seed} {patient}".encode()).hexdigest()
