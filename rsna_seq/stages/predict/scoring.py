"""Scores of studies: ``cache.apply``, ``embed.apply``, ``sequence.apply`` and ``stack.apply``, chained.

A study's result depends on nothing but the study; memory does not grow with their number.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from rsna_seq.arrays import Floats
from rsna_seq.config import CacheConfig, PredictConfig
from rsna_seq.console import progress
from rsna_seq.imaging.decoder import must_not_be_timeouts
from rsna_seq.labels import CLASSES
from rsna_seq.reasons import ExclusionError, Reason
from rsna_seq.stages import cache, index
from rsna_seq.stages.predict.trained import TrainedRun
from rsna_seq.store.tables import PREDICTED_SLICES, QUARANTINE, check, from_rows


@dataclass(frozen=True)
class Prediction:
    """What is known of the studies of the inputs, unclipped.

    Attributes:
        slices: PREDICTED_SLICES, one row per slice that was read.
        excluded: QUARANTINE.
        unwrapped: Slices whose 12-bit wrap was corrected.
        seconds: Time for reading and scoring each study.
    """

    slices: pl.DataFrame
    excluded: pl.DataFrame
    unwrapped: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)


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
    passes, unwrapped = cache.split_by_pass(scan.slices), 0
    seconds: dict[str, float] = {}
    with progress("predict", len(passes)) as advance:
        for rows in passes:
            start, study = time.monotonic(), str(rows["study"][0])
            probabilities, lost, corrected = _score_pass(cfg, rows, scan.root, trained)
            unwrapped += corrected
            if not are_probabilities(probabilities.select(CLASSES).to_numpy()):
                lost = lost + _without_result(probabilities)
                probabilities = probabilities.clear()
            tables.append(probabilities)
            excluded.append(from_rows(lost, QUARANTINE))
            seconds[study] = seconds.get(study, 0.0) + time.monotonic() - start
            advance(1)
    slices = check(pl.concat(tables), PREDICTED_SLICES, "slices")
    if slices.is_empty():
        must_not_be_timeouts("predict", pl.concat(excluded)["reason"])
    return Prediction(slices, pl.concat(excluded), unwrapped, seconds)


def _without_result(slices: pl.DataFrame) -> list[dict[str, object]]:
    """Rows of QUARANTINE for slices whose probabilities are invalid."""
    error = ExclusionError(Reason.BAD_RESULT)
    told = slices.select("file", "study", "slice", "z_mm").iter_rows(named=True)
    return [error.row(row["file"]) | row for row in told]


def _score_pass(
    cfg: PredictConfig, rows: pl.DataFrame, root: Path, trained: list[TrainedRun]
) -> tuple[pl.DataFrame, list[dict[str, object]], int]:
    """PREDICTED_SLICES of one pass, the slices whose pixels could not be read, and the wraps corrected."""
    reads: dict[CacheConfig, cache.Read] = {}
    answers = []
    for run_ in trained:
        if run_.cache not in reads:
            reads[run_.cache] = cache.apply(rows, root, run_.cache)
        read = reads[run_.cache]
        if read.volume is not None:
            answers.append(_per_slice(read.slabs, run_.score(read.volume, tta=cfg.tta)))
    first = next(iter(reads.values()))
    lost, corrected = first.excluded, int(first.slabs["unwrapped"].sum())
    if not answers:
        return pl.DataFrame(schema=dict(PREDICTED_SLICES)), lost, corrected
    mean = pl.concat(answers).group_by("slice").agg(pl.col(c).mean() for c in CLASSES)
    keys = rows.select("study", "series", "slice", "file", "z_mm")
    return keys.join(mean, on="slice", how="inner", maintain_order="left"), lost, corrected


def _per_slice(slabs: pl.DataFrame, probabilities: Floats) -> pl.DataFrame:
    """Give every slice its slab's answer."""
    answered = slabs.select("slices").with_columns(
        pl.Series(name, probabilities[:, c]) for c, name in enumerate(CLASSES)
    )
    return answered.explode("slices").rename({"slices": "slice"})
