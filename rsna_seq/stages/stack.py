"""``stack``: boosted trees over the study, one booster per class, averaged with the sequence model.

1. Where ``joint`` is finished, its logit, weighted by ``stack.joint_weight``, is averaged with that of the
   sequence model. Like the CNN's, the logits of a row are those of its ``net``, which for an out-of-fold
   study never saw the patient.
2. Features (:mod:`rsna_seq.stacking.features`): logits of the models for the slice and its neighbours,
   running statistics, geometry. Trees with random thresholds make other errors than the recurrent network,
   so that the average of both is better than either.
3. For each crossed fold and class, :func:`fit` trains on the other folds; its logit, weighted by
   ``stack.blend_weight``, is averaged with the logit of step 1.
4. One gate per class and step: an average is used only where it helps out of fold; the gate of a fold is
   decided on the other folds.
5. Calibration (:mod:`rsna_seq.stacking.calibration`): one temperature for all classes, fitted on the other
   folds, used if it lowers the official metric on them.
6. Numbers of the training studies, with which ``predict`` compares unseen ones
   (:mod:`rsna_seq.scoring.novelty`).
7. ``boosters/{fold}_{class}.txt``, ``gates.json``, ``logits.parquet``, where a temperature is used
   ``uncalibrated.parquet``; ``training.parquet``, ``training_vectors.npy``.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.arrays import Floats
from rsna_seq.config import StackConfig
from rsna_seq.console import progress
from rsna_seq.context import Context
from rsna_seq.errors import IntegrityError, UsageError
from rsna_seq.folds import held_out
from rsna_seq.labels import CLASSES
from rsna_seq.scoring.training_studies import training_fault, write_training
from rsna_seq.stacking.calibration import cross_temperatures
from rsna_seq.stacking.features import class_features, join_logits, stack_features
from rsna_seq.stacking.gates import UNSEEN, Gates, decide, shut
from rsna_seq.stacking.stacker import Stacker, boost, read_booster, write_boosters
from rsna_seq.store.artifacts import BuildSummary, Key, Manifest, open_artifact
from rsna_seq.store.builds import ensure, reproduction_fault
from rsna_seq.store.files import write_json
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.provenance import source_digest
from rsna_seq.store.run_folder import RunFolder, open_folds
from rsna_seq.store.study_labels import slice_labelled
from rsna_seq.store.tables import LOGITS, read_table, write_table

_DEPTH = 5
_CHECKED_STUDIES = 3
"""Studies of each crossed fold, and held-out ones, on which boosters are checked if the code changed."""
_CLEAR = 0.0
"""Standard errors by which an average or a temperature must help: of two models that err apart the average
seldom harms, nor does one temperature; stricter gates lost more than they saved (benchmarks/NOTES.md)."""


def run(cfg: StackConfig, ctx: Context, run: RunFolder) -> Manifest:
    """Fit the boosters of every crossed fold and score the studies that each left out.

    Args:
        cfg: Boosting and features.
        ctx: Seed.
        run: Has ``2_cache``, ``3_embed``, ``4_sequence`` and, if it is to be used, ``4_joint``; receives
            ``5_stack``.

    Raises:
        UsageError: ``joint`` is the only source, and it is not finished.
        IntegrityError: An input is not finished, or the folder holds boosters that were fitted otherwise.
    """
    joint = ["joint"] if run.is_finished("joint") else []
    artifacts = run.open("cache", "embed", "sequence", *joint)
    inputs = {name: artifact.manifest.content for name, artifact in artifacts.items()}
    cfg = cfg if joint else _without_joint(cfg)
    config = cfg.model_dump(mode="json", exclude=set() if joint else {"joint_weight"})
    key = Key("stack", {**config, "seed": ctx.seed}, inputs, source_digest(__name__))

    def logits_and_slabs() -> tuple[pl.DataFrame, pl.DataFrame]:
        cache = PixelCache(run["cache"])
        slabs = slice_labelled(cache.slabs, cache.study_labels)
        stages = [name for name in artifacts if name != "cache"]
        logits = {name: read_table(artifacts[name].file("logits.parquet"), LOGITS) for name in stages}
        return join_logits(logits["embed"], logits["sequence"], slabs, logits.get("joint")), slabs

    def build(folder: Path) -> BuildSummary:
        write_training(PixelCache(run["cache"]), open_folds(run["embed"]), folder)
        return _build(cfg, *logits_and_slabs(), folder, ctx.seed)

    def check(folder: Path) -> str | None:
        fault = training_fault(PixelCache(run["cache"]), open_artifact(folder))
        return fault or _reproduces(cfg, *logits_and_slabs(), folder)

    return ensure(run["stack"], key, build, learned=True, rebuild=ctx.rebuild, check=check)


def _without_joint(cfg: StackConfig) -> StackConfig:
    """The config for a run in which ``joint`` is not finished."""
    sources = tuple(source for source in cfg.sources if source != "joint")
    if cfg.sources and not sources:
        raise UsageError(
            "stack.sources=[joint]: joint is not finished in this run; run it, or add cnn or seq"
        )
    return cfg.model_copy(update={"sources": sources})


def _reproduces(cfg: StackConfig, table: pl.DataFrame, slabs: pl.DataFrame, folder: Path) -> str | None:
    """Apply stored boosters to a few studies that they were not trained on; a sentence if the logits differ.

    The studies of each crossed fold are compared before the calibration, with the gates of that fold, because
    the calibration of a fold is not stored; held-out studies are compared with their final logits.
    """
    stage = open_artifact(folder)
    before = "uncalibrated" if "uncalibrated.parquet" in stage.manifest.files else "logits"
    final, plain = (read_table(stage.file(f"{name}.parquet"), LOGITS) for name in ("logits", before))
    saved = json.loads(stage.file("gates.json").read_text(encoding="utf-8"))
    gates, joint = saved["gates"], saved.get("joint", {})
    keys, worst, refined = ["study", "slab", "net", "cross"], 0.0, False
    for fold, unseen in load(cfg, folder).items():
        own = replace(unseen, gates=gates[str(fold)], joint=joint.get(str(fold), {}), temperature=1.0)
        for which, stacker, stored in (
            (pl.col("cross_fold") == fold, own, plain),
            (held_out(), unseen, final),
        ):
            some = slabs.filter(which)["study"].unique(maintain_order=True).head(_CHECKED_STUDIES)
            rows = table.filter(pl.col("study").is_in(some.implode()), pl.col("cross") == fold)
            if rows.is_empty():
                continue
            known = rows.select(keys).join(stored, on=keys, how="left", maintain_order="left")
            difference = np.abs(apply(stacker, rows) - known.select(CLASSES).to_numpy())
            worst = float(np.maximum(worst, difference.max()))  # NaN where a stored logit is missing
            refined |= any(stacker.gates[name] for name in stacker.boosters)
    if any(gates[str(UNSEEN)].values()) and not refined:
        return "no stored logit depends on a booster, so that none can be checked"
    return reproduction_fault(worst)


def fit(
    cfg: StackConfig, features: pl.DataFrame, labels: NDArray[np.number], seed: int = 0
) -> dict[str, lgb.Booster]:
    """Fit one booster per class.

    Args:
        cfg: Boosting.
        features: (row, feature).
        labels: (row, 6) of 0 and 1; rows without a label (NaN) of a class are not used for it.
        seed: Seed of the boosting.

    Returns:
        Boosters by class; a class without both answers has none.
    """
    params = {
        "objective": "binary",
        "extra_trees": True,
        "learning_rate": cfg.lr,
        "num_leaves": cfg.leaves,
        "max_depth": _DEPTH,
        "min_data_in_leaf": cfg.min_leaf,
        "lambda_l2": cfg.l2,
        "feature_fraction": 0.5,
        "bagging_fraction": 0.7,
        "bagging_freq": 2,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    boosters = {}
    for c, name in enumerate(CLASSES):
        known = np.isfinite(labels[:, c])
        if len(np.unique(labels[known, c])) < 2:
            continue
        chosen = class_features(features.columns, name)
        rows = features if known.all() else features.filter(known)
        data = lgb.Dataset(
            np.array(rows.select(chosen).to_numpy(), order="C"),
            labels[known, c].copy(),
            feature_name=_safe(chosen),
        )
        boosters[name] = lgb.train(params, data, num_boost_round=cfg.rounds)
    return boosters


def apply(stacker: Stacker, table: pl.DataFrame) -> Floats:
    """Refine the logits of whole studies.

    Args:
        stacker: Boosters and gates.
        table: As :func:`rsna_seq.stacking.features.join_logits` makes it, whole studies.

    Returns:
        (row, 6) logits.
    """
    base: Floats = table.select(f"seq_{c}" for c in CLASSES).to_numpy().copy()
    for name in (name for name, opened in stacker.joint.items() if opened):
        c = CLASSES.index(name)
        base[:, c] += stacker.cfg.joint_weight * (table[f"joint_{name}"].to_numpy() - base[:, c])
    return boost(stacker, table, base) / stacker.temperature


def load(cfg: StackConfig, out: Path) -> dict[int, Stacker]:
    """The boosters of a finished stage, by crossed fold, each file compared with its digest.

    Raises:
        IntegrityError: The stage is not finished, or a file is not the one that was written.
    """
    stage = open_artifact(out)
    saved = json.loads(stage.file("gates.json").read_text(encoding="utf-8"))
    if "temperature" not in saved:
        raise IntegrityError(f"{out}: written by an earlier version; run the stage stack with --rebuild")
    stackers = {}
    for fold in saved["folds"]:
        boosters = {name: booster for name in CLASSES if (booster := read_booster(stage, fold, name))}
        joint = saved.get("joint", {}).get(str(UNSEEN), {})  # absent in runs of earlier versions
        stackers[fold] = Stacker(cfg, boosters, saved["gates"][str(UNSEEN)], saved["temperature"], joint)
    return stackers


def _build(
    cfg: StackConfig, table: pl.DataFrame, slabs: pl.DataFrame, folder: Path, seed: int
) -> BuildSummary:
    """Fit all crossed folds, decide the gates, write the logits of the studies that each fold left out."""
    truth = slabs.select(
        "study", "slab", "patient", *(pl.col(c).alias(f"y_{c}") for c in CLASSES), own="cross_fold"
    )
    table = table.join(truth, on=["study", "slab"], how="left", maintain_order="left")
    features = stack_features(table, cfg.neighbours, cfg.sources)
    labels = table.select(f"y_{c}" for c in CLASSES).to_numpy()
    own, cross = table["own"].to_numpy(), table["cross"].to_numpy()
    folds = sorted(set(own[own >= 0].tolist()))
    about: dict[str, Any] = {
        "labels": labels,
        "own": own,
        "patients": table["patient"].to_numpy(),
        "folds": folds,
    }
    base, joint = _with_joint(cfg, table, cross, about)
    boosted = base.copy()
    with progress("stack", len(folds)) as advance:
        for fold in folds:
            train, left = (own >= 0) & (own != fold), cross == fold
            boosters = fit(cfg, features.filter(train), labels[train], seed + fold)
            write_boosters(boosters, folder / "boosters", fold)
            stacker = Stacker(cfg, boosters, dict.fromkeys(CLASSES, True))
            boosted[left] = boost(stacker, table.filter(left), base[left])
            advance(1)
    gates = decide(base, boosted, **about, clear=_CLEAR)
    shut(boosted, base, gates, own, cross)
    calibrated, temperature = cross_temperatures(boosted, labels, own, folds)
    helped = decide(boosted, calibrated, **about, clear=_CLEAR, whole=True)
    shut(calibrated, boosted, helped, own, cross)
    _write_logits(table, calibrated, folder / "logits.parquet")
    if any(opened["any"] for opened in helped.values()):
        _write_logits(table, boosted, folder / "uncalibrated.parquet")
    used = temperature if helped[UNSEEN]["any"] else 1.0
    saved = {"folds": folds, "gates": gates, "temperature": used, "joint": joint}
    write_json(folder / "gates.json", saved)
    counts = {"boosters": len(list((folder / "boosters").glob("*.txt")))}
    counts |= {"classes averaged with joint": sum(joint[UNSEEN].values())} if joint else {}
    return BuildSummary({**counts, "classes refined": sum(gates[UNSEEN].values())}, {})


def _with_joint(
    cfg: StackConfig, table: pl.DataFrame, cross: NDArray[np.int16], about: Mapping[str, Any]
) -> tuple[Floats, Gates]:
    """Average sequence model and ``joint`` where that helps: (row, 6) logits, and the gates.

    Without ``joint`` the logits are those of the sequence model, and there are no gates.
    """
    alone = table.select(f"seq_{c}" for c in CLASSES).to_numpy()
    if "joint_any" not in table.columns:
        return alone, {}
    both = alone + cfg.joint_weight * (table.select(f"joint_{c}" for c in CLASSES).to_numpy() - alone)
    gates = decide(alone, both, **about, clear=_CLEAR)
    shut(both, alone, gates, about["own"], cross)
    return both, gates


def _write_logits(table: pl.DataFrame, logits: Floats, path: Path) -> None:
    """Write (row, 6) logits, one row per row of the joined table."""
    rows = table.select("study", "slab", "net", "cross").with_columns(
        pl.Series(name, logits[:, c], pl.Float64) for c, name in enumerate(CLASSES)
    )
    write_table(rows.sort("study", "slab", "net", "cross"), path, LOGITS)


def _safe(names: list[str]) -> list[str]:
    """Feature names without the characters that LightGBM's text format reserves."""
    return [name.replace(":", ".") for name in names]
