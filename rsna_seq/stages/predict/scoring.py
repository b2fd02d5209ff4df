"""Scores of studies: ``cache.apply``, ``embed.apply``, ``sequence.apply`` and ``stack.apply``, chained.

A study's result depends on nothing but the study; memory does not grow with their number.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rsna_seq.arrays import Floats
from rsna_seq.config import CacheConfig, PredictConfig
from rsna_seq.console import progress
from rsna_seq.imaging.decoder import must_not_be_timeouts
from rsna_seq.labels import CLASSES
from rsna_seq.reasons import ExclusionError, Reason
from rsna_seq.scoring.training_studies import study_numbers
from rsna_seq.stages import cache, index
from rsna_seq.stages.predict.trained import TrainedRun
from rsna_seq.store.tables import PREDICTED_SLICES, QUARANTINE, SLABS, STUDY_CHECKS, check, from_rows


@dataclass(frozen=True)
class Prediction:
    """What is known of the studies of the inputs, unclipped.

    Attributes:
        slices: PREDICTED_SLICES, one row per slice that was read.
        excluded: QUARANTINE.
        checks: STUDY_CHECKS, one row per study of ``slices``.
        passes: ``study``, ``unwrapped``, ``brain_hu`` and ``hu_shift`` of SLABS, one row per pass.
        seconds: Time for reading and scoring each study.
    """

    slices: pl.DataFrame
    excluded: pl.DataFrame
    checks: pl.DataFrame
    passes: pl.DataFrame
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Scored:
    """One pass of a study.

    Attributes:
        slices: PREDICTED_SLICES.
        lost: Rows of QUARANTINE for slices whose pixels could not be read.
        summary: ``Prediction.passes`` of this pass.
        highest: (network, 6) highest probability of the pass by each network of each run.
        novelty: :meth:`rsna_seq.scoring.novelty.Training.judge` of each run.
    """

    slices: pl.DataFrame
    lost: list[dict[str, object]]
    summary: pl.DataFrame
    highest: Floats
    novelty: list[dict[str, Any]] = field(default_factory=list)


def are_probabilities(values: Floats) -> bool:
    """Whether every value is finite and within 0 and 1; nothing else is ever written."""
    return bool(((values >= 0) & (values <= 1)).all())  # NaN is neither


def score_studies(cfg: PredictConfig, scan: index.Scan, trained: list[TrainedRun]) -> Prediction:
    """Score every study of a scan, one after the other, in memory that does not grow with their number.

    Args:
        cfg: Averaging.
        scan: What was found in the inputs.
        trained: Runs whose probabilities are averaged.

    Returns:
        The probabilities, and every slice that has none with its reason: a study whose probabilities are not
        finite and within 0 and 1 is excluded (``bad_result``).

    Raises:
        EnvironmentFaultError: No slice could be read, and decoding took too long.
    """
    tables, excluded = [pl.DataFrame(schema=dict(PREDICTED_SLICES))], [scan.quarantine]
    passes, read = cache.split_by_pass(scan.slices), [_summary(pl.DataFrame(schema=dict(SLABS)))]
    checked: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    with progress("predict", len(passes)) as advance:
        for rows in passes:
            start = time.monotonic()
            scored, study = _score_pass(cfg, rows, scan.root, trained), str(rows["study"][0])
            seconds[study] = seconds.get(study, 0.0) + time.monotonic() - start
            read.append(scored.summary)
            tables.append(scored.slices)
            excluded.append(from_rows(scored.lost, QUARANTINE))
            if len(scored.slices):
                checked[study] = _with_pass(checked.get(study), scored)
            advance(1)
    slices = check(pl.concat(tables), PREDICTED_SLICES, "slices")
    if slices.is_empty():
        must_not_be_timeouts("predict", pl.concat(excluded)["reason"])
    checks = from_rows([_checks(study, found) for study, found in checked.items()], STUDY_CHECKS)
    return Prediction(slices, pl.concat(excluded), checks, pl.concat(read), seconds)


def _with_pass(found: Mapping[str, Any] | None, scored: _Scored) -> dict[str, Any]:
    """Add a pass to its study: keep the highest probabilities, and the run and pass of highest novelty."""
    novelty = max(scored.novelty, key=lambda row: row["novelty"])
    if found is None:
        return {"highest": scored.highest, "novelty": novelty}
    return {
        "highest": np.maximum(found["highest"], scored.highest),
        "novelty": max(found["novelty"], novelty, key=lambda row: row["novelty"]),
    }


def _checks(study: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """The row of STUDY_CHECKS of a study.

    The spread of a class is the standard deviation, over all networks of all runs, of the study's highest
    probability; 0 if all networks agree, at most 0.5.
    """
    spread = found["highest"].std(axis=0)
    return {
        "study": study,
        **found["novelty"],
        **{f"{name}_spread": float(spread[c]) for c, name in enumerate(CLASSES)},
    }


def _without_result(slices: pl.DataFrame) -> list[dict[str, object]]:
    """Rows of QUARANTINE for slices whose probabilities are invalid."""
    error = ExclusionError(Reason.BAD_RESULT)
    told = slices.select("file", "study", "slice", "z_mm").iter_rows(named=True)
    return [error.row(row["file"]) | row for row in told]


def _score_pass(cfg: PredictConfig, rows: pl.DataFrame, root: Path, trained: list[TrainedRun]) -> _Scored:
    """Score one pass with all runs; without slices if none could be read or a probability is invalid."""
    reads: dict[CacheConfig, cache.Read] = {}
    answers, highest, novelty = [], [], []
    for run_ in trained:
        if run_.cache not in reads:
            reads[run_.cache] = cache.apply(rows, root, run_.cache)
        read = reads[run_.cache]
        if read.volume is not None:
            found = run_.answers(read.volume, tta=cfg.tta)
            answers.append(_per_slice(read.slabs, found.probabilities.mean(axis=0)))
            highest.append(found.probabilities.max(axis=1))
            numbers = study_numbers(read.volume, int(read.slabs["hu_shift"][0] or 0))
            distance = run_.training.distance(found.vectors)
            novelty.append(run_.training.judge({**numbers, "embedding_distance": distance}))
    first = next(iter(reads.values()))
    lost, summary = first.excluded, _summary(first.slabs)
    if not answers:
        return _Scored(
            pl.DataFrame(schema=dict(PREDICTED_SLICES)), lost, summary, np.empty((0, len(CLASSES)))
        )
    mean = pl.concat(answers).group_by("slice").agg(pl.col(c).mean() for c in CLASSES)
    keys = rows.select("study", "series", "slice", "file", "z_mm")
    slices = keys.join(mean, on="slice", how="inner", maintain_order="left")
    if not are_probabilities(slices.select(CLASSES).to_numpy()):
        lost, slices = lost + _without_result(slices), slices.clear()
    return _Scored(slices, lost, summary, np.concatenate(highest), novelty)


def _summary(slabs: pl.DataFrame) -> pl.DataFrame:
    """One row per pass: corrected wraps, brain mode and shift."""
    passes = slabs.group_by("study", maintain_order=True)
    return passes.agg(pl.col("unwrapped").sum(), pl.col("brain_hu", "hu_shift").first())


def _per_slice(slabs: pl.DataFrame, probabilities: Floats) -> pl.DataFrame:
    """Give every slice its slab's answer."""
    answered = slabs.select("slices").with_columns(
        pl.Series(name, probabilities[:, c]) for c, name in enumerate(CLASSES)
    )
    return answered.explode("slices").rename({"slices": "slice"})
