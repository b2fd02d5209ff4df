"""``bundle`` and ``info``: a finished run as one file with a model card, and what a run or bundle holds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from rsna_seq.errors import IntegrityError, UsageError
from rsna_seq.labels import CLASSES
from rsna_seq.models import PHANTOMS_ONLY
from rsna_seq.scoring.baselines import slab_prior
from rsna_seq.store.artifacts import load_manifest, open_artifact
from rsna_seq.store.bundle import BundleInfo, is_bundle, read_bundle, write_bundle
from rsna_seq.store.bundle_content import TrainingSummary
from rsna_seq.store.outputs import MANIFEST, is_run
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.run_folder import STAGES, RunFolder, is_phantom_run
from rsna_seq.terminal.paths import require_file


def run(
    folder: Path,
    out: Path,
    *,
    licence: str,
    name: str | None = None,
    half: bool = False,
    notes: Path | None = None,
) -> BundleInfo:
    """Write a finished run as a bundle.

    Args:
        folder: The run.
        out: The bundle, a ``.zip`` file.
        licence: Licence of the weights; it is the user's decision and has no default.
        name: Name of the model; by default that of the file.
        half: Round weight matrices to half precision.
        notes: Markdown text that is appended to the model card.

    Raises:
        UsageError: The licence is empty, the notes do not exist, or ``out`` is another file.
        IntegrityError: The run is not finished.
    """
    if not licence.strip():
        raise UsageError("--licence: name the licence of the weights, for example CC-BY-4.0 or proprietary")
    training = training_of(RunFolder(folder))
    title = name or out.stem
    card = model_card(RunFolder(folder), training, title, licence)
    if notes is not None:
        card += "\n" + require_file(notes, "--notes").read_text(encoding="utf-8")
    return write_bundle(
        RunFolder(folder), out, training=training, card=card, name=title, licence=licence, half=half
    )


def training_of(run_: RunFolder) -> TrainingSummary:
    """What a bundle keeps of the training data of a run.

    Raises:
        IntegrityError: The cache or the index is not finished.
    """
    cache = PixelCache(run_["cache"])
    slabs = cache.slabs.filter(pl.col("fold") >= 0)
    counts = {
        "studies": slabs["study"].n_unique(),
        "patients": slabs["patient"].n_unique(),
        "slices": int(slabs["slices"].list.len().sum()),
    }
    prior = slab_prior(slabs, cache.study_labels)
    return TrainingSummary(prior.tolist(), counts, phantoms_only=is_phantom_run(run_))


def model_card(run_: RunFolder, training: TrainingSummary, name: str, licence: str) -> str:
    """The model card of a run, in Markdown."""
    kind = "phantoms (synthetic head CT) only" if training.phantoms_only else "studies of the user"
    counts = ", ".join(f"{n:,} {what}" for what, n in training.counts.items())
    prior = ", ".join(f"{c} {p:.4f}" for c, p in zip(CLASSES, training.prior, strict=True))
    notice = f"\n{PHANTOMS_ONLY}\n" if training.phantoms_only else ""
    return f"""# {name}
{notice}
- Licence of the weights: {licence}
- Input: non-contrast head CT as DICOM, or Hounsfield units with positions in mm.
- Output: six probabilities per slice: {", ".join(CLASSES)}.
- Trained on: {kind}; {counts}.
- Prevalence per slice in the training data: {prior}.

## Intended use

Research. Not a medical device; not for clinical decisions. Evaluate it on your own labelled studies, with
intervals, before a probability is used for anything.

## Metrics

{_metrics(run_)}

## Limits

- Scanners, protocols and patients that were not in the training data shift the results.
- Structures as dense as blood (contrast agent, calcification, metal) can be taken for blood.
- Performance by age, sex and scanner was not measured.
"""


def _metrics(run_: RunFolder) -> str:
    """The scores of a run as a Markdown table; a sentence if it was not evaluated."""
    try:
        stage = open_artifact(run_["evaluate"])
    except IntegrityError:
        return "The run was not evaluated (`rsna-seq evaluate`)."
    metrics: dict[str, Any] = json.loads(stage.file("metrics.json").read_text(encoding="utf-8"))
    rows = [
        f"| {model} | {m['log_loss']:.4f} | {m['low']:.4f} to {m['high']:.4f} |"
        for model, m in sorted(metrics["models"].items(), key=lambda row: -row[1]["log_loss"])
    ]
    scope = metrics["scope"].replace("_", " ")
    unit = metrics.get("unit", "slices")
    head = (
        f"Log loss over {unit} ({scope} patients of the training data; lower is better), 95 % interval over "
        "patients."
    )
    return "\n".join([head, "", "| model | log loss | interval |", "|---|---|---|", *rows])


def info(path: Path) -> dict[str, Any]:
    """Describe a run or a bundle, without torch.

    Args:
        path: The folder of a run, or a bundle.

    Returns:
        Plain data: for a bundle its description and digest, for a run its stages with versions and counts.

    Raises:
        UsageError: It is neither.
        IntegrityError: It is damaged.
    """
    if is_bundle(path):
        found = read_bundle(path)
        return {"kind": "bundle", "digest": found.digest, **found.model_dump(mode="json", exclude={"files"})}
    if not is_run(path):
        raise UsageError(f"{path}: neither the folder of a run nor a bundle (.zip)")
    folder = RunFolder(path)
    stages = {}
    for stage in STAGES:
        if (folder[stage] / MANIFEST).is_file():
            made = load_manifest(folder[stage])
            stages[stage] = {"version": made.version, "content": made.content, "counts": made.counts}
    return {"kind": "run", "phantoms_only": is_phantom_run(folder), "stages": stages}


def text_of(described: dict[str, Any]) -> str:
    """The description of a run or bundle as lines of text."""
    lines = [f"kind: {described['kind']}"]
    lines += [f"{k}: {v}" for k, v in described.items() if k != "kind" and not isinstance(v, dict)]
    if "training" in described:
        lines.append(f"trained on: {_counted(described['training'])}")
    for stage, made in described["stages"].items():
        lines.append(f"{stage}: {made if isinstance(made, str) else _counted(made['counts'])}")
    return "\n".join(lines)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {what}" for what, n in counts.items())
