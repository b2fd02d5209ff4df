"""The stages in order: from DICOM files to a scored submission.

==============  ==========================================================================
``1_index``     headers to a table: one row per slice, ordered, labelled, in folds
``2_cache``     pixels to HU, decoded once, cropped to the head
``3_embed``     a CNN over neighbouring slices: a vector and six logits per slice, out of fold
``4_sequence``  a GRU over the whole study
``4_joint``     optional: CNN and GRU fine-tuned together
``5_stack``     boosted trees over the logits of the models
``6_evaluate``  the official metric, baselines, the report
``7_predict``   the submission for the competition's test images
==============  ==========================================================================
"""

import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from rsna_seq.config import Config, dump_config, load_config
from rsna_seq.console import say
from rsna_seq.context import Context
from rsna_seq.datasets.imported import reads_sets
from rsna_seq.datasets.rsna2019.layout import find_layout
from rsna_seq.errors import UsageError
from rsna_seq.store.artifacts import Manifest
from rsna_seq.store.files import write_text
from rsna_seq.store.run_folder import OPTIONAL, STAGES, RunFolder

_CONFIG = "config.yaml"
_HEADER = "# The config of this run, written by rsna_seq; later commands on this folder use it.\n"


def config_of_run(run: Path, file: Path | None, overrides: list[str], *, limit: int | None = None) -> Config:
    """Resolve the config of a command on a run: the file that is named, else the one that the run keeps.

    Args:
        run: The run's folder.
        file: ``--config``, or None.
        overrides: Strings such as ``embed.epochs=3``.
        limit: ``--limit``, or None.

    Raises:
        UsageError: The config is invalid.
    """
    kept = run / _CONFIG
    words = [*overrides, *([] if limit is None else [f"limit={limit}"])]
    if file is None and _is_kept(kept):
        say("config", str(kept))
        file = kept
    return load_config(file, words)


def run_stage(stage: str, cfg: Config, run: Path, *, rebuild: bool = False) -> Manifest | None:
    """Run one stage on the artefacts of the stages before it, and keep the config in the run's folder.

    Args:
        stage: One of STAGES but ``predict``.
        cfg: The resolved config.
        run: The run's folder.
        rebuild: Rebuild the stage, trained weights included.

    Returns:
        The manifest of the stage, or None while folds of other jobs are missing.

    Raises:
        RsnaSeqError: As the stage's own ``run`` says.
    """
    if stage not in STAGES[:-1]:
        raise ValueError(f"no stage is called {stage!r}")
    _must_be_ours(run / _CONFIG)
    ctx, folder = Context.of(cfg, rebuild=rebuild), RunFolder(run)
    made: Manifest | None
    if cfg.synth.format == "hu" and stage in {"index", "cache"}:
        phantoms = import_module("rsna_seq.tools.phantom_run")
        made = (phantoms.run_index if stage == "index" else phantoms.run_cache)(cfg, ctx, folder)
    elif stage == "index" and reads_sets(cfg.data):
        made = import_module("rsna_seq.tools.import_set").run_index(cfg.index, ctx, folder)
    else:
        module = import_module(f"rsna_seq.stages.{stage}")
        made = module.run(getattr(cfg, stage), ctx, folder)
    _keep(cfg, run / _CONFIG)
    return made


def run_all(cfg: Config, run: Path, *, rebuild: bool = False) -> dict[str, Manifest]:
    """Run all stages, optional ones if enabled, and write the submission if the data has test images.

    Args:
        cfg: The resolved config.
        run: The run's folder.
        rebuild: Rebuild every stage.

    Returns:
        The manifests of the stages that are finished.
    """
    folder, finished = RunFolder(run), dict[str, Manifest]()
    for stage in STAGES[:-1]:
        if stage in OPTIONAL and not getattr(cfg, stage).enabled:
            continue
        made = run_stage(stage, cfg, run, rebuild=rebuild)
        if made is None:
            return finished  # other jobs train the folds that are missing
        finished[stage] = made
    if cfg.synth.format == "hu" or reads_sets(cfg.data):
        return finished  # there are no test images
    layout = find_layout(cfg.data.root, cfg.data.stage)
    if layout.test is not None:
        # a series that is asked for is one of the training studies: `index` has found it there
        unseen = cfg.model_copy(update={"index": cfg.index.model_copy(update={"series": None})})
        finished["predict"] = predict(
            [layout.test], [run], folder["predict"], unseen, sample=layout.sample, rebuild=rebuild
        )
    return finished


def _is_kept(file: Path) -> bool:
    """Whether a config file is one that a run keeps."""
    try:
        return file.read_text(encoding="utf-8").startswith(_HEADER)
    except (OSError, UnicodeDecodeError):
        return False


def _must_be_ours(file: Path) -> None:
    """Refuse a run's folder in which somebody keeps a config of their own."""
    if file.exists() and not _is_kept(file):
        raise UsageError(f"{file}: is there, and rsna_seq did not write it; move it, or choose another --out")


def _keep(cfg: Config, file: Path) -> None:
    """Write the config of a run, without what belongs to one command or one machine."""
    once = {"limit": None, "workers": 0, "device": "auto"}
    by_fold = {s: getattr(cfg, s).model_copy(update={"folds": None}) for s in ("embed", "joint")}
    text = _HEADER + dump_config(cfg.model_copy(update={**once, **by_fold}))
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        write_text(file, text)


def predict(
    folders: list[Path],
    runs: Sequence[str | os.PathLike[str]],
    out: Path,
    cfg: Config,
    *,
    sample: Path | None = None,
    dicom: Path | None = None,
    rebuild: bool = False,
) -> Manifest:
    """Score studies with one or more finished runs.

    Args:
        folders: Folders of DICOM studies, zip files or DICOM files.
        runs: Finished runs, bundles, or bundles on the internet (:mod:`rsna_seq.store.remote`), averaged;
            none for the model in the package (:mod:`rsna_seq.models`).
        out: Receives the tables and the report.
        cfg: The resolved config.
        sample: The competition's sample submission, for which ``submission.csv`` is written.
        dicom: Receives DICOM results, or None.
        rebuild: Predict again, even if the output is up to date.

    Returns:
        The manifest of the prediction.
    """
    from rsna_seq.models import packaged_model
    from rsna_seq.stages.predict import run as stage
    from rsna_seq.store.remote import local_model

    ctx = Context.of(cfg, rebuild=rebuild)
    models = [local_model(run) for run in runs] or [packaged_model()]
    return stage.run(cfg.predict, ctx, folders, models, out, indexing=cfg.index, sample=sample, dicom=dicom)


def synth(cfg: Config, out: Path) -> dict[str, Any]:
    """Write phantoms: a data set of DICOM files, or the outputs of ``index`` and ``cache`` of a run.

    Args:
        cfg: The resolved config; ``synth.format`` selects which.
        out: Root of the data set, or folder of the run.

    Returns:
        The numbers of a data set, or the summaries of the stages.

    Raises:
        RsnaSeqError: ``out`` contains other files, or the disk is full.
    """
    from rsna_seq.tools import synth as tool

    if cfg.synth.format == "hu":
        made = {stage: run_stage(stage, cfg, out) for stage in ("index", "cache")}
        return {"stages": {stage: manifest.summary for stage, manifest in made.items() if manifest}}
    return asdict(tool.run(cfg.synth, out, seed=cfg.seed, workers=Context.of(cfg).workers))


def demo(cfg: Config, out: Path, *, rebuild: bool = False) -> dict[str, Any]:
    """Write phantoms, run all stages on them, and predict phantoms that the run has not seen.

    Args:
        cfg: The resolved config; its data root is replaced by the phantoms.
        out: Everything is written below this folder.
        rebuild: Rebuild everything but the phantoms.

    Returns:
        The stages' summaries, the log loss on unseen phantoms with its interval, and the reports.

    Raises:
        UsageError: ``synth.format`` is not ``dicom``.
    """
    from rsna_seq.datasets.rsna2019.submission import score_answer
    from rsna_seq.tools import synth

    if cfg.synth.format != "dicom":
        raise UsageError("demo: it reads DICOM files; set synth.format=dicom, or use rsna-seq run")
    workers = Context.of(cfg).workers
    seen, unseen = out / "phantoms", out / "unseen_phantoms"
    synth.run(cfg.synth, seen, seed=cfg.seed, workers=workers)
    others = cfg.synth.model_copy(update={"studies": cfg.synth.test_studies, "test_studies": 0})
    synth.run(others, unseen, seed=cfg.seed + 1, workers=workers)
    data = cfg.data.model_copy(update={"root": seen})
    stages = run_all(cfg.model_copy(update={"data": data}), out, rebuild=rebuild)
    answer = out / "8_unseen"
    predict([unseen / f"stage_{cfg.data.stage}_train"], [out], answer, cfg, rebuild=rebuild)
    loss = score_answer(answer / "slices.csv", unseen / f"stage_{cfg.data.stage}_train.csv", cfg.seed)
    say("demo", f"log loss on unseen phantoms: {loss.value:.4f} ({loss.low:.4f} to {loss.high:.4f})")
    reports = {"run": RunFolder(out)["evaluate"] / "report.html", "unseen": answer / "report.html"}
    say("demo", f"report of the run: {reports['run']}")
    say("demo", f"report of the unseen studies: {reports['unseen']}")
    scored = {"value": loss.value, "low": loss.low, "high": loss.high}
    summaries = {name: manifest.summary for name, manifest in stages.items()}
    return {"out": out, "log_loss": scored, "reports": reports, "stages": summaries}
