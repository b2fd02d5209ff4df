"""``predict``: unseen studies and a finished run -> probabilities; the ``apply`` of every stage, chained.

1. ``index.scan`` finds the slices below a folder and orders them.
2. For each study: ``cache.apply`` -> volume; for every network ``embed.apply`` -> vectors and logits; for
   every pair of network and sequence model ``sequence.apply`` and ``stack.apply`` -> logits.
3. Probabilities are averaged over the pairs, never embeddings; then over the runs.
4. ``slices.csv``, ``studies.csv``, ``report.html``, ``quarantine.parquet``; with a sample
   ``submission.csv``.

The only stage that imports others.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.artifacts import Key, Manifest, Receipt, ensure
from rsna_seq.config import CacheConfig, IndexConfig, PredictConfig
from rsna_seq.console import progress, say
from rsna_seq.errors import NothingUsableError
from rsna_seq.imaging.decoder import must_not_be_timeouts
from rsna_seq.imaging.volume import Volume
from rsna_seq.labels import CLASSES
from rsna_seq.provenance import digest_file, source_digest
from rsna_seq.report.page import write_prediction_report
from rsna_seq.slabs import tell_wraps
from rsna_seq.stages import cache, index
from rsna_seq.store.outputs import must_be_safe
from rsna_seq.submission import (
    fill_set_aside,
    read_sample,
    studies_table,
    submission,
    write_csv,
    write_submission,
)
from rsna_seq.tables import (
    PREDICTED_SLICES,
    QUARANTINE,
    check,
    from_rows,
    table_digest,
    tell_reasons,
    write_table,
)
from rsna_seq.trained import TrainedRun

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """What is known of the studies below the folders, unclipped.

    Attributes:
        slices: PREDICTED_SLICES, one row a slice that was read.
        set_aside: QUARANTINE.
        unwrapped: Slices whose 12-bit wrap was corrected.
    """

    slices: pl.DataFrame
    set_aside: pl.DataFrame
    unwrapped: int = 0


def run(
    cfg: PredictConfig,
    folders: list[Path],
    runs: list[Path],
    out: Path,
    *,
    indexing: IndexConfig,
    sample: Path | None = None,
    device: str = "auto",
    workers: int = 1,
    limit: int | None = None,
    rebuild: bool = False,
) -> Manifest:
    """Score the studies below some folders with one or more finished runs.

    Args:
        cfg: Averaging, clipping, the report's threshold.
        folders: Folders of DICOM studies.
        runs: Folders of finished runs; their probabilities are averaged.
        out: Receives the tables and the report.
        indexing: How headers are read.
        sample: The competition's sample submission, which is then answered in ``submission.csv``.
        device: ``auto`` or a torch device.
        workers: Processes that read headers.
        limit: Only so many studies of each folder.
        rebuild: Predict anew what is there.

    Raises:
        UsageError: The sample is none, or no study has the series that ``indexing`` names.
        NothingUsableError: There is no readable slice, and no sample to answer.
        IntegrityError: A run is not finished.
    """
    sources = [*folders, *runs, *([sample] if sample else [])]
    must_be_safe(out, "predict", sources)
    if sample is not None:
        read_sample(sample)  # a sample that is none is refused before hours of work, not after
    trained = [TrainedRun(folder, device) for folder in runs]
    scans = [
        index.scan(folder, indexing, workers=workers, limit=limit, title="predict") for folder in folders
    ]
    index.require_series(indexing.series, scans)
    if not any(len(s.slices) for s in scans) and sample is None:
        raise NothingUsableError(f"predict: no readable CT slice below {', '.join(map(str, folders))}")
    shared = _shared_patients(scans, trained)
    if shared:
        say("predict", f"{shared:,} patients were also trained on: what is said of them is not unseen")
    inputs = {f"{i} {name}": digest for i, t in enumerate(trained) for name, digest in t.content.items()}
    inputs |= {f"folder {i}": table_digest(scan.slices) for i, scan in enumerate(scans)}
    inputs |= {"sample": digest_file(sample)} if sample else {}
    key = Key("predict", {**cfg.model_dump(mode="json"), "limit": limit}, inputs, source_digest(__name__))

    def build(target: Path) -> Receipt:
        prediction = score_studies(cfg, scans, trained)
        return _write(cfg, prediction, trained, scans, sample, target)

    return ensure(out, key, build, rebuild=rebuild, sources=sources)


def _shared_patients(scans: list[index.Scan], trained: list[TrainedRun]) -> int:
    """Patients of the scans that a run was trained on; the competition's test set has 285 of them."""
    known = pl.concat([t.patients for t in trained]).unique()
    asked = pl.concat([scan.slices["patient"] for scan in scans]).unique()
    return int(asked.is_in(known.implode()).sum())


def predict(
    source: str | os.PathLike[str] | NDArray[np.integer],
    run: TrainedRun | str | os.PathLike[str],
    **geometry: Any,
) -> pl.DataFrame:
    """Probabilities for a folder of DICOM studies, or for one study in memory.

    Args:
        source: A folder, or (slice, y, x) Hounsfield units.
        run: A finished run, or its folder.
        geometry: For an array, ``z_mm``: (slice,) positions along the slice normal, rising to the vertex.

    Returns:
        PREDICTED_SLICES for a folder; ``z_mm`` and the six classes, one row a slice, for an array.

    Raises:
        ValueError: An array without positions, or with others than rising ones.
    """
    trained = run if isinstance(run, TrainedRun) else TrainedRun(run)
    if not isinstance(source, np.ndarray):
        scan = index.scan(Path(source), IndexConfig())
        return score_studies(PredictConfig(), [scan], [trained]).slices
    z_mm = np.asarray(geometry["z_mm"] if set(geometry) == {"z_mm"} else [], dtype=np.float64)
    if source.ndim != 3 or z_mm.shape != (len(source),) or (np.diff(z_mm) < 0).any():
        raise ValueError("an array is (slice, y, x) HU, with z_mm=(slice,) positions in mm that rise")
    pixels, slab, _ = cache.prepare([p.astype(np.int16) for p in source], z_mm, trained.cache)
    centre = np.bincount(slab, weights=z_mm) / np.bincount(slab)
    answer = trained.score(Volume("array", pixels, centre))[slab]
    return pl.DataFrame({"z_mm": z_mm} | {name: answer[:, c] for c, name in enumerate(CLASSES)})


def score_studies(cfg: PredictConfig, scans: list[index.Scan], trained: list[TrainedRun]) -> Prediction:
    """Score every study of some scans, one after the other, in memory that does not grow with their number.

    Args:
        cfg: Averaging.
        scans: What was found below the folders.
        trained: Runs whose probabilities are averaged.

    Raises:
        EnvironmentFaultError: No slice could be read, and decoding took too long.
    """
    tables, set_aside = [pl.DataFrame(schema=dict(PREDICTED_SLICES))], [scan.quarantine for scan in scans]
    unwrapped = 0
    with progress("predict", sum(scan.slices["study", "pass"].n_unique() for scan in scans)) as advance:
        for scan in scans:
            for rows in cache.sweeps(scan.slices):
                probabilities, lost, corrected = _score_sweep(cfg, rows, scan.root, trained)
                unwrapped += corrected
                tables.append(probabilities)
                set_aside.append(from_rows(lost, QUARANTINE))
                advance(1)
    slices = check(pl.concat(tables), PREDICTED_SLICES, "slices")
    if slices.is_empty():
        must_not_be_timeouts("predict", pl.concat(set_aside)["reason"])
    return Prediction(slices, pl.concat(set_aside), unwrapped)


def _score_sweep(
    cfg: PredictConfig, rows: pl.DataFrame, root: Path, trained: list[TrainedRun]
) -> tuple[pl.DataFrame, list[dict[str, object]], int]:
    """PREDICTED_SLICES of one sweep, the slices whose pixels could not be read, and the wraps corrected."""
    reads: dict[CacheConfig, cache.Read] = {}
    answers = []
    for run_ in trained:
        if run_.cache not in reads:
            reads[run_.cache] = cache.apply(rows, root, run_.cache)
        read = reads[run_.cache]
        if read.volume is not None:
            answers.append(_per_slice(read.slabs, run_.score(read.volume, tta=cfg.tta)))
    first = next(iter(reads.values()))
    lost, corrected = first.set_aside, int(first.slabs["unwrapped"].sum())
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


def _write(
    cfg: PredictConfig,
    prediction: Prediction,
    trained: list[TrainedRun],
    scans: list[index.Scan],
    sample: Path | None,
    out: Path,
) -> Receipt:
    """Write the tables, the answer to a sample, and the report."""
    classes = [pl.col(c).clip(cfg.clip, 1 - cfg.clip) for c in CLASSES]
    slices = prediction.slices.with_columns(classes)
    write_csv(slices, out / "slices.csv")
    studies = studies_table(prediction.slices).with_columns(classes)
    write_csv(studies, out / "studies.csv")
    write_table(prediction.set_aside, out / "quarantine.parquet", QUARANTINE)
    counts = {"studies": len(studies), "slices": len(slices)}
    if sample is not None:
        known = prediction.slices.select("slice", *CLASSES)
        filled = fill_set_aside(prediction.slices, prediction.set_aside)
        prior = np.mean([t.prior for t in trained], axis=0)
        answer, unanswered = submission(sample, pl.concat([known, filled]), prior, cfg.clip)
        write_submission(answer, sample, out / "submission.csv")
        counts |= {
            "rows of submission": len(answer),
            "filled from neighbours": len(filled),
            "from the prior": unanswered,
        }

    def read(study: str) -> Volume | None:
        for scan in scans:
            rows = scan.slices.filter(pl.col("study") == study, pl.col("pass") == 0)
            if len(rows):
                return cache.apply(rows, scan.root, trained[0].cache).volume
        return None

    write_prediction_report(slices, read, cfg.threshold, out / "report.html", prediction.set_aside)
    tell_reasons(prediction.set_aside, [flags for scan in scans for flags in scan.studies["flags"]])
    counts |= tell_wraps(
        pl.concat([scan.slices for scan in scans]), prediction.unwrapped, prediction.set_aside
    )
    reasons = prediction.set_aside.group_by("reason").len().rows()
    shared = _shared_patients(scans, trained)
    counts |= {"patients also trained on": shared} if shared else {}
    return Receipt(counts, dict(reasons), str(trained[0].device))
