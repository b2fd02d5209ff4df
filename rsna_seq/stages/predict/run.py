"""``predict``: unseen studies and a finished run -> probabilities; the ``apply`` of every stage, chained.

1. ``index.scan`` finds the slices of all inputs, as one set, and orders them.
2. For each study: ``cache.apply`` -> volume; for every network ``embed.apply`` -> vectors and logits; for
   every pair of network and sequence model ``sequence.apply`` and ``stack.apply`` -> logits.
3. Probabilities are averaged over the pairs, never embeddings; then over the runs.
4. Each study is compared with the training studies of each run (:mod:`rsna_seq.scoring.novelty`).
5. ``slices.csv``, ``studies.csv``, ``studies.json``, ``quarantine.parquet``; ``report.html``, of several
   studies with ``studies/``; with a sample ``submission.csv``.
6. With ``dicom`` a folder of DICOM results (:mod:`rsna_seq.clinic.write`), from ``studies.json``.

``file`` in the tables is relative to the input folder, of several to the deepest folder that holds them all:
``root`` in ``slices.csv`` and ``studies.json``, ``config.root`` in the manifest.

The only stage that imports others.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from rsna_seq.clinic.collect import collect
from rsna_seq.clinic.extra import must_have_highdicom
from rsna_seq.clinic.results import STUDIES, Results, Study, read_results
from rsna_seq.clinic.write import KIND, write_dicom
from rsna_seq.config import IndexConfig, PredictConfig
from rsna_seq.console import say
from rsna_seq.context import Context
from rsna_seq.datasets.rsna2019.submission import (
    fill_excluded,
    read_sample,
    studies_table,
    submission,
    write_csv,
    write_submission,
)
from rsna_seq.errors import UsageError
from rsna_seq.imaging.folders import escaped
from rsna_seq.imaging.sources import must_exist
from rsna_seq.labels import CLASSES
from rsna_seq.models import PHANTOMS_ONLY
from rsna_seq.report.images import Images, read_images
from rsna_seq.report.prediction import write_prediction_report
from rsna_seq.report.worklist import order_by_urgency, row_of
from rsna_seq.stages import index
from rsna_seq.stages.predict.inputs import inputs_of, must_be_of_input
from rsna_seq.stages.predict.locations import Pictures, with_locations
from rsna_seq.stages.predict.scoring import Prediction, score_studies
from rsna_seq.stages.predict.thresholds import thresholds_for
from rsna_seq.stages.predict.trained import TrainedRun
from rsna_seq.store.artifacts import BuildSummary, Key, Manifest
from rsna_seq.store.builds import ensure
from rsna_seq.store.files import write_text
from rsna_seq.store.outputs import must_be_safe
from rsna_seq.store.provenance import digest_file, source_digest
from rsna_seq.store.slabs import report_brain_modes, report_wraps
from rsna_seq.store.tables import (
    QUARANTINE,
    nothing_usable,
    report_exclusions,
    table_digest,
    write_table,
)


def run(
    cfg: PredictConfig,
    ctx: Context,
    folders: list[Path],
    runs: Sequence[Path | TrainedRun],
    out: Path,
    *,
    indexing: IndexConfig,
    sample: Path | None = None,
    dicom: Path | None = None,
) -> Manifest:
    """Score studies with one or more finished runs.

    Args:
        cfg: Averaging, clipping, the report's threshold.
        ctx: Device, workers, limit.
        folders: Folders of DICOM studies, zip files or DICOM files.
        runs: Folders of finished runs, bundles, or runs that are loaded; their probabilities are averaged.
        out: Receives the tables and the report.
        indexing: How headers are read.
        sample: The competition's sample submission, for which ``submission.csv`` is written.
        dicom: Receives DICOM results, or None.

    Raises:
        UsageError: An input does not exist, the sample is none, or ``indexing.series`` is found nowhere.
        NothingUsableError: No slice could be read, and there is no sample to answer; ``quarantine.parquet``
            says why.
        IntegrityError: A run is not finished.
    """
    for folder in folders:
        must_exist(folder)
    models = [each.folder if isinstance(each, TrainedRun) else each for each in runs]
    sources = [*folders, *models, *([sample] if sample else [])]
    must_be_safe(out, "predict", sources)
    if not ctx.rebuild:
        must_be_of_input(out, folders)
    if dicom is not None:
        _must_take_dicom(dicom, out, sources)
    if sample is not None:
        read_sample(sample)  # a sample that is none is refused before hours of work, not after
    trained = [each if isinstance(each, TrainedRun) else TrainedRun(each, ctx.device) for each in runs]
    if any(t.phantoms_only for t in trained):
        say("predict", PHANTOMS_ONLY)
    scan = index.scan(folders, indexing, workers=ctx.workers, limit=ctx.limit, title="predict")
    _say_of_patients(scan, trained)
    key = _key(cfg, ctx, folders, trained, scan, sample)

    def build(target: Path) -> BuildSummary:
        prediction = score_studies(cfg, scan, trained)
        if prediction.slices.is_empty():
            what = f"predict: no readable CT slice in {', '.join(map(str, folders))}"
            if sample is None:
                raise nothing_usable(prediction.excluded, target, what)
            say("predict", f"{what}: every row of the submission is the prevalence of its class")
        return _write(cfg, prediction, trained, scan, sample, target)

    manifest = ensure(out, key, build, rebuild=ctx.rebuild, sources=sources)
    found = read_results(out)
    _say_most_urgent(found, out)
    if dicom is not None:
        write_dicom(found, scan.slices, scan.root, dicom, sources=sources, rebuild=ctx.rebuild)
    return manifest


def _key(
    cfg: PredictConfig,
    ctx: Context,
    folders: list[Path],
    trained: list[TrainedRun],
    scan: index.Scan,
    sample: Path | None,
) -> Key:
    """What a prediction depends on."""
    inputs = {f"{i} {name}": digest for i, t in enumerate(trained) for name, digest in t.content.items()}
    inputs |= {f"{i} thresholds": t.points.digest for i, t in enumerate(trained)}
    inputs |= {"slices": table_digest(scan.slices), "quarantine": table_digest(scan.quarantine)}
    inputs |= {"sample": digest_file(sample)} if sample else {}
    about = {"limit": ctx.limit, "root": escaped(str(scan.root.resolve())), "inputs": inputs_of(folders)}
    return Key("predict", {**cfg.model_dump(mode="json"), **about}, inputs, source_digest(__name__))


def _say_of_patients(scan: index.Scan, trained: list[TrainedRun]) -> None:
    """Print how many patients of the scan are in the training data."""
    shared = _shared_patients(scan, trained)
    if shared:
        say(
            "predict",
            f"{shared:,} patients are in the training data: they are not unseen, and their probabilities are "
            "too good",
        )


def _say_most_urgent(results: Results, out: Path) -> None:
    """Print where the report is, and the answer of the most urgent study; PatientIDs are not printed."""
    if results.studies:
        first = order_by_urgency([row_of(study, None) for study in results.studies])[0]
        marks = f" ({', '.join(first.marks)})" if first.marks else ""
        say("predict", f"most urgent: study {first.study}: {first.line}{marks}")
    say("predict", f"report: {out / 'report.html'}")


def _must_take_dicom(dicom: Path, out: Path, sources: list[Path]) -> None:
    """Refuse DICOM results that cannot be written: no highdicom, or a folder that overlaps with another."""
    must_have_highdicom()
    must_be_safe(dicom, KIND, sources, option="--dicom")
    one, other = dicom.absolute().resolve(), out.absolute().resolve()
    if one == other or one in other.parents or other in one.parents:
        raise UsageError(f"--dicom {dicom}: overlaps with --out {out}; choose a folder beside it")


def _shared_patients(scan: index.Scan, trained: list[TrainedRun]) -> int:
    """Patients of the scan that a run was trained on; the competition's test set has 285 of them."""
    known = pl.concat([t.patients for t in trained]).unique()
    return int(scan.slices["patient"].unique().is_in(known.implode()).sum())


def _write(
    cfg: PredictConfig,
    prediction: Prediction,
    trained: list[TrainedRun],
    scan: index.Scan,
    sample: Path | None,
    out: Path,
) -> BuildSummary:
    """Write the tables, the answer to a sample, and the report."""
    classes = [pl.col(c).clip(cfg.prob_clip, 1 - cfg.prob_clip) for c in CLASSES]
    slices = prediction.slices.with_columns(classes)
    root = pl.lit(escaped(str(scan.root.resolve()))).alias("root")
    write_csv(
        slices.select(pl.col("*").exclude("z_mm", *CLASSES), root, "z_mm", *CLASSES), out / "slices.csv"
    )
    studies = studies_table(prediction.slices).with_columns(classes)
    studies = studies.join(prediction.checks, on="study", how="left", maintain_order="left")
    write_csv(studies, out / "studies.csv")
    results = _collect(cfg, prediction, studies, slices, trained, scan)
    results, pictures = with_locations(results, scan, trained[0], cfg.pages) if cfg.locate else (results, {})
    write_text(out / STUDIES, results.model_dump_json(indent=1) + "\n")
    write_table(prediction.excluded, out / "quarantine.parquet", QUARANTINE)
    counts = {"studies": len(studies), "slices": len(slices)}
    if sample is not None:
        known = prediction.slices.select("slice", *CLASSES)
        filled = fill_excluded(prediction.slices, prediction.excluded)
        prior = np.mean([t.prior for t in trained], axis=0)
        answer, unanswered = submission(sample, pl.concat([known, filled]), prior, cfg.prob_clip)
        write_submission(answer, sample, out / "submission.csv")
        counts |= {
            "rows of submission": len(answer),
            "filled from neighbours": len(filled),
            "from the prior": unanswered,
        }

    _write_report(cfg, results, prediction.excluded, slices, scan, pictures, out)
    report_exclusions(prediction.excluded, scan.studies["flags"].to_list())
    unwrapped = int(prediction.passes["unwrapped"].sum())
    counts |= report_wraps(scan.slices, unwrapped, prediction.excluded)
    counts |= report_brain_modes(prediction.passes)
    counts |= _report_unlike(prediction.checks)
    reasons = prediction.excluded.group_by("reason").len().rows()
    shared = _shared_patients(scan, trained)
    counts |= {"patients also trained on": shared} if shared else {}
    return BuildSummary(counts, dict(reasons), str(trained[0].device))


def _collect(
    cfg: PredictConfig,
    prediction: Prediction,
    studies: pl.DataFrame,
    slices: pl.DataFrame,
    trained: list[TrainedRun],
    scan: index.Scan,
) -> Results:
    """Gather the content of ``studies.json``; if the thresholds could not be chosen, say why."""
    results = collect(
        studies,
        slices,
        scan.slices,
        prediction.excluded,
        models=[t.identity for t in trained],
        root=escaped(str(scan.root.resolve())),
        thresholds=thresholds_for(cfg, [t.points for t in trained]),
        seconds=prediction.seconds,
        numbers=scan.numbers,
    )
    if (
        cfg.operating_point != "fixed"
        and results.thresholds
        and results.thresholds.operating_point == "fixed"
    ):
        say("predict", results.thresholds.note)
    return results


def _write_report(
    cfg: PredictConfig,
    results: Results,
    excluded: pl.DataFrame,
    slices: pl.DataFrame,
    scan: index.Scan,
    pictures: Pictures,
    out: Path,
) -> None:
    """Write ``report.html``, and pages of several studies; images are read again at their own resolution."""

    def read(study: Study, keys: Collection[str]) -> Images | None:
        answered = slices.filter(pl.col("study") == study.study)["slice"]
        rows = scan.slices.filter(pl.col("study") == study.study, pl.col("slice").is_in(answered.implode()))
        return read_images(rows.sort("z_mm", maintain_order=True), scan.root, cfg.image_size, keys)

    write_prediction_report(
        results, slices, scan.numbers, excluded, read, out, pages=cfg.pages, pictures=pictures
    )


def _report_unlike(checks: pl.DataFrame) -> dict[str, int]:
    """Print how many studies are unlike the training data, and return the count if there is one."""
    unlike = checks.filter("unlike_training")
    if unlike.is_empty():
        return {}
    say(
        "predict",
        f"unlike the training data: {len(unlike):,} of {len(checks):,} studies, whose probabilities may be "
        f"wrong; studies.csv gives the reasons, such as {unlike['unlike_reason'][0]}",
    )
    return {"unlike the training data": len(unlike)}
