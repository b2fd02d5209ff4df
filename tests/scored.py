"""A run as ``evaluate`` finds it, with logits drawn by chance: no network is trained."""

from pathlib import Path

import numpy as np
import polars as pl
from builders import write_array

from rsna_seq.labels import ANY, CLASSES, N_CLASSES
from rsna_seq.store.artifacts import BuildSummary, Key
from rsna_seq.store.builds import ensure
from rsna_seq.store.tables import (
    LOGITS,
    QUARANTINE,
    SLABS,
    SLICES,
    from_rows,
    logit_table,
    read_table,
    write_table,
)

NOISE = {"3_embed": 1.6, "4_sequence": 0.7, "4_joint": 0.65, "5_stack": 0.6}
"""What stands between a model's logits and the truth."""
FOLDS = 3


def scored_run(
    run: Path,
    *,
    studies: int = 24,
    held_out: int = 6,
    absent: tuple[str, ...] = (),
    stages: tuple[str, ...] = ("3_embed", "4_sequence", "5_stack"),
    calibrated: bool = True,
    seed: int = 0,
) -> Path:
    """Folders ``1_index`` to ``5_stack`` of a run over small studies, every second slab of two slices.

    Args:
        run: Receives the folders.
        studies: How many, two a patient.
        held_out: How many of them are held out.
        absent: Classes that never occur.
        stages: Learned stages that are finished.
        calibrated: ``stack`` uses a temperature.
        seed: Seed of labels and logits.
    """
    random = np.random.default_rng(seed)
    slabs: list[dict[str, object]] = []
    for i in range(studies):
        held = i >= studies - held_out
        folds = (
            {"fold": -1, "cross_fold": -1} if held else {"fold": i // 2 % FOLDS, "cross_fold": i // 6 % FOLDS}
        )
        slabs += _study(i, _labels(random, absent), len(slabs), folds)
    slices = [
        {"study": s["study"], "slice": name, "patient": s["patient"], "z_mm": s["z_mm"] + k, "flags": ""}
        | {c: s[c] if k == 0 else 0 for c in (*CLASSES,)}
        | {"fold": s["fold"], "cross_fold": s["cross_fold"]}
        for s in slabs
        for k, name in enumerate(s["slices"])
    ]
    lost = [{"file": "<b>cut</b>.dcm", "action": "quarantined", "reason": "pixels_truncated", "detail": ""}]
    finish(run / "1_index", {"slices.parquet": (slices, SLICES), "quarantine.parquet": (lost, QUARANTINE)})
    pixels = random.integers(0, 80, (len(slabs), 16, 16)).astype(np.int16)
    finish(run / "2_cache", {"slabs.parquet": (slabs, SLABS), "quarantine.parquet": ([], QUARANTINE)}, pixels)
    for stage in stages:
        write_logits(run, stage, calibrated=calibrated, seed=seed)
    return run


def write_logits(
    run: Path, stage: str, *, noise: float | None = None, calibrated: bool = True, seed: int = 0
) -> None:
    """Finish a learned stage with logits that know the truth but for some noise."""
    slabs = read_table(run / "2_cache" / "slabs.parquet", SLABS).filter(pl.col("fold").is_not_null())
    random = np.random.default_rng([seed, int(stage[0])])
    by_fold = stage in {"3_embed", "4_joint"}
    truth = slabs.select(CLASSES).to_numpy()
    wide = NOISE[stage] if noise is None else noise
    crosses = range(-1, 0) if by_fold else range(FOLDS)
    tables = []
    hard = random.normal(0, 0.5 * wide, truth.shape)  # what is hard is hard for every network
    for net in range(FOLDS):
        for cross in crosses:
            logits = 5.0 * truth - 3.0 + hard + random.normal(0, wide, truth.shape)
            mine = (pl.col("fold") == net) & ((pl.col("cross_fold") == cross) | (cross == -1))
            kept = slabs.select((pl.col("fold") == -1) | mine).to_series().to_numpy()
            tables.append(logit_table(slabs.filter(pl.Series(kept)), logits[kept], net=net, cross=cross))
    names = ("logits.parquet", "uncalibrated.parquet")[: 2 if stage == "5_stack" and calibrated else 1]
    finish(run / stage, {name: (pl.concat(tables).to_dicts(), LOGITS) for name in names})


def finish(folder: Path, tables: dict, pixels: np.ndarray | None = None) -> None:
    """A finished artefact that holds some tables."""

    def build(out: Path) -> BuildSummary:
        for name, (rows, schema) in tables.items():
            write_table(from_rows(rows, schema), out / name, schema)
        if pixels is not None:
            write_array(out / "shard_0000.npy", pixels)
        return BuildSummary({}, {})

    ensure(folder, Key(folder.name[2:], {"made": "by a test"}, {}, "test"), build, rebuild=True)


def _labels(random: np.random.Generator, absent: tuple[str, ...]) -> np.ndarray:
    """(slab, class): two studies in three bleed, over three slabs and up to two classes."""
    labels = np.zeros((int(random.integers(6, 10)), N_CLASSES), dtype=int)
    if random.random() < 0.66:
        start = int(random.integers(0, len(labels) - 3))
        for kind in random.choice(N_CLASSES - 1, size=2):
            if CLASSES[kind] not in absent:
                labels[start : start + 3, kind] = 1
    labels[:, ANY] = 0 if "any" in absent else labels[:, :-1].max(axis=1)
    return labels


def _study(i: int, labels: np.ndarray, start: int, folds: dict[str, int]) -> list[dict[str, object]]:
    name = f"<i>S{i:03d}</i>"
    return [
        {
            "study": name,
            "patient": f"SECRET{i // 2:03d}",
            "slab": k,
            "z_mm": 5.0 * k,
            "slices": [f"{name}-{k}", f"{name}-{k}b"] if k % 2 else [f"{name}-{k}"],
            "shard": 0,
            "row": start + k,
            **dict(zip(CLASSES, row.tolist(), strict=True)),
            **folds,
        }
        for k, row in enumerate(labels)
    ]
