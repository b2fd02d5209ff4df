"""``predict``: unseen studies and a finished run -> probabilities; the ``apply`` of every stage, chained.

1. ``index.scan`` finds the slices of all inputs, as one set, and orders them.
2. For each study: ``cache.apply`` -> volume; for every network ``embed.apply`` -> vectors and logits; for
   every pair of network and sequence model ``sequence.apply`` and ``stack.apply`` -> logits.
3. Probabilities are averaged over the pairs, never embeddings; then over the runs.
4. ``slices.csv``, ``studies.csv``, ``report.html``, ``quarantine.parquet``; with a sample
   ``submission.csv``.

``file`` in the tables is relative to the input folder, of several to the deepest folder that holds them all;
the manifest names that folder as ``config.root``.

The only stage that imports others.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from rsna_seq.artifacts import Key, Manifest, Receipt, ensure
from rsna_seq.config import CacheConfig, IndexConfig, PredictConfig
from rsna_seq.console import progress, say
from rsna_seq.errors import IntegrityError
from rsna_seq.imaging.decoder import must_not_be_timeouts
from rsna_seq.imaging.folders import escaped
from rsna_seq.imaging.sources import must_exist
from rsna_seq.imaging.volume import Volume
from rsna_seq.labels import CLASSES
from rsna_seq.provenance import digest_file, source_digest
from rsna_seq.reasons import Reason, SetAsideError
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
    nothing_usable,
    table_digest,
    tell_reasons,
    write_table,
)
from rsna_seq.trained import TrainedRun

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """What is known of the studies of the inputs, unclipped.

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
    """Score the studies of some inputs with one or more finished runs.

    Args:
        cfg: Averaging, clipping, the report's threshold.
        folders: Folders of DICOM studies, zip files or DICOM files; they are read as one set.
        runs: Folders of finished runs; their probabilities are averaged.
        out: Receives the tables and the report.
        indexing: How headers are read.
        sample: The competition's sample submission, which is then answered in ``submission.csv``.
        device: ``auto`` or a torch device.
        workers: Processes that read headers.
        limit: Only so many studies.
        rebuild: Predict anew what is there.

    Raises:
        UsageError: An input does not exist, the sample is none, or ``indexing.series`` is found nowhere.
        NothingUsableError: No slice could be read, and there is no sample to answer; ``quarantine.parquet``
            says why.
        IntegrityError: A run is not finished.
    """
    for folder in folders:
        must_exist(folder)
    sources = [*folders, *runs, *([sample] if sample else [])]
    must_be_safe(out, "predict", sources)
    if sample is not None:
        read_sample(sample)  # a sample that is none is refused before hours of work, not after
    trained = [TrainedRun(folder, device) for folder in runs]
    scan = index.scan(folders, indexing, workers=workers, limit=limit, title="predict")
    shared = _shared_patients(scan, trained)
    if shared:
        say("predict", f"{shared:,} patients were also trained on: what is said of them is not unseen")
    inputs = {f"{i} {name}": digest for i, t in enumerate(trained) for name, digest in t.content.items()}
    inputs |= {"slices": table_digest(scan.slices), "quarantine": table_digest(scan.quarantine)}
    inputs |= {"sample": digest_file(sample)} if sample else {}
    config = {**cfg.model_dump(mode="json"), "limit": limit, "root": escaped(str(scan.root.resolve()))}

    def build(target: Path) -> Receipt:
        prediction = score_studies(cfg, scan, trained)
        if prediction.slices.is_empty():
            what = f"predict: no readable CT slice in {', '.join(map(str, folders))}"
            if sample is None:
                raise nothing_usable(prediction.set_aside, target, what)
            say("predict", f"{what}: every answer is the prior")
        return _write(cfg, prediction, trained, scan, sample, target)

    key = Key("predict", config, inputs, source_digest(__name__))
    return ensure(out, key, build, rebuild=rebuild, sources=sources)


def _shared_patients(scan: index.Scan, trained: list[TrainedRun]) -> int:
    """Patients of the scan that a run was trained on; the competition's test set has 285 of them."""
    known = pl.concat([t.patients for t in trained]).unique()
    return int(scan.slices["patient"].unique().is_in(known.implode()).sum())


def predict(
    source: str | os.PathLike[str] | NDArray[np.integer],
    run: TrainedRun | str | os.PathLike[str],
    *,
    z_mm: ArrayLike | None = None,
) -> pl.DataFrame:
    """Probabilities for a folder of DICOM studies, or for one study in memory.

    Args:
        source: A folder, a zip file, a DICOM file, or (slice, y, x) Hounsfield units.
        run: A finished run, or its folder.
        z_mm: For an array: (slice,) positions along the slice normal in mm, rising to the vertex.

    Returns:
        PREDICTED_SLICES for a folder; ``z_mm`` and the six classes, one row per slice, for an array.

    Raises:
        ValueError: An array without positions, or with others than rising ones; positions without an array.
        UsageError: The source does not exist.
        IntegrityError: The run is not finished, or gives no probabilities for the array.
    """
    if not isinstance(source, np.ndarray):
        if z_mm is not None:
            raise ValueError("z_mm goes with an array; DICOM files have positions of their own")
        must_exist(Path(source), "predict")
        scan = index.scan(Path(source), IndexConfig())
        return score_studies(PredictConfig(), scan, [_loaded(run)]).slices
    places = np.asarray([] if z_mm is None else z_mm, dtype=np.float64)
    rising = places.shape == (len(source),) and np.isfinite(places).all() and (np.diff(places) >= 0).all()
    if source.ndim != 3 or not rising:
        raise ValueError("an array is (slice, y, x) HU, with z_mm=(slice,) positions in mm that rise")
    trained = _loaded(run)
    pixels, slab, _ = cache.prepare([p.astype(np.int16) for p in source], places, trained.cache)
    centre = np.bincount(slab, weights=places) / np.bincount(slab)
    answer = trained.score(Volume("array", pixels, centre))[slab]
    if not are_probabilities(answer):
        raise IntegrityError(f"{trained.folder}: {Reason.BAD_RESULT.sentence}; check the run with `evaluate`")
    return pl.DataFrame({"z_mm": places} | {name: answer[:, c] for c, name in enumerate(CLASSES)})


def _loaded(run: TrainedRun | str | os.PathLike[str]) -> TrainedRun:
    return run if isinstance(run, TrainedRun) else TrainedRun(run)


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
    tables, set_aside = [pl.DataFrame(schema=dict(PREDICTED_SLICES))], [scan.quarantine]
    sweeps, unwrapped = cache.sweeps(scan.slices), 0
    with progress("predict", len(sweeps)) as advance:
        for rows in sweeps:
            probabilities, lost, corrected = _score_sweep(cfg, rows, scan.root, trained)
            unwrapped += corrected
            if not are_probabilities(probabilities.select(CLASSES).to_numpy()):
                lost = lost + _without_result(probabilities)
                probabilities = probabilities.clear()
            tables.append(probabilities)
            set_aside.append(from_rows(lost, QUARANTINE))
            advance(1)
    slices = check(pl.concat(tables), PREDICTED_SLICES, "slices")
    if slices.is_empty():
        must_not_be_timeouts("predict", pl.concat(set_aside)["reason"])
    return Prediction(slices, pl.concat(set_aside), unwrapped)


def _without_result(slices: pl.DataFrame) -> list[dict[str, object]]:
    """Rows of QUARANTINE for slices whose probabilities are none."""
    error = SetAsideError(Reason.BAD_RESULT)
    told = slices.select("file", "study", "slice", "z_mm").iter_rows(named=True)
    return [error.row(row["file"]) | row for row in told]


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
    scan: index.Scan,
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
        rows = scan.slices.filter(pl.col("study") == study, pl.col("pass") == 0)
        return cache.apply(rows, scan.root, trained[0].cache).volume if len(rows) else None

    write_prediction_report(slices, read, cfg.threshold, out / "report.html", prediction.set_aside)
    tell_reasons(prediction.set_aside, scan.studies["flags"].to_list())
    counts |= tell_wraps(scan.slices, prediction.unwrapped, prediction.set_aside)
    counts |= {"patients also trained on": shared} if (shared := _shared_patients(scan, trained)) else {}
    reasons = prediction.set_aside.group_by("reason").len().rows()
    return Receipt(counts, dict(reasons), str(trained[0].device))
