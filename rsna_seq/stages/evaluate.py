"""``evaluate``: scores of every model and baseline of a run.

1. Probabilities per slice (:mod:`rsna_seq.scoring.baselines`): prior, CNN, CNN smoothed along z, sequence,
   joint where it is finished, stack, and the calibrated stack if a temperature is used.
2. Scores (:mod:`rsna_seq.scoring.scores`): the official metric with its interval over patients, per class,
   calibration over slices and studies, out of fold and, where patients were held out, on them.
3. Where ``stack`` is finished, thresholds for ``predict`` (:mod:`rsna_seq.scoring.operating_points`).
4. ``metrics.json``, ``operating_points.json``, ``report.html``, and a table on the screen.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.box import SIMPLE_HEAD
from rich.table import Table

from rsna_seq.arrays import Floats
from rsna_seq.config import EvaluateConfig
from rsna_seq.console import console, say
from rsna_seq.context import Context
from rsna_seq.errors import IntegrityError, NothingUsableError
from rsna_seq.labels import CLASSES
from rsna_seq.report.run import pick_studies, write_run_report
from rsna_seq.report.strip import study_strip
from rsna_seq.scoring.baselines import label_array, network_spread, read_models, read_study_models, scopes
from rsna_seq.scoring.operating_points import FILE, OperatingPoints, operating_points
from rsna_seq.scoring.scores import Scope, by_study, score
from rsna_seq.store.artifacts import Artifact, BuildSummary, Key, Manifest
from rsna_seq.store.builds import ensure
from rsna_seq.store.files import write_json
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.provenance import source_digest
from rsna_seq.store.run_folder import OPTIONAL, RunFolder
from rsna_seq.store.tables import QUARANTINE, read_table

_INPUTS = ("index", "cache", "embed", "sequence", "stack")


def run(cfg: EvaluateConfig, ctx: Context, run: RunFolder) -> Manifest:
    """Score the finished stages of a run.

    Args:
        cfg: Bootstrap, smoothing, strips.
        ctx: Seed of the bootstrap.
        run: Has ``1_index`` to, at least, ``3_embed``; receives ``6_evaluate``.

    Raises:
        IntegrityError: ``embed`` is not finished, or the stages do not belong together.
    """
    if not run.is_finished("embed"):
        raise IntegrityError(f"{run['embed']}: embed is not finished; there is nothing to score")
    last = max(i for i, stage in enumerate(_INPUTS) if run.is_finished(stage))
    optional = [stage for stage in sorted(OPTIONAL) if run.is_finished(stage)]
    artifacts = run.open(*_INPUTS[: last + 1], *optional)  # a later stage needs all earlier ones
    for stage in _INPUTS[last + 1 :]:
        say("evaluate", f"{stage} is not finished and is not scored")
    inputs = {stage: artifact.manifest.content for stage, artifact in artifacts.items()}
    key = Key("evaluate", {**cfg.model_dump(mode="json"), "seed": ctx.seed}, inputs, source_digest(__name__))
    return ensure(
        run["evaluate"], key, lambda folder: _build(cfg, artifacts, folder, ctx.seed), rebuild=ctx.rebuild
    )


def _build(cfg: EvaluateConfig, artifacts: Mapping[str, Artifact], out: Path, seed: int) -> BuildSummary:
    of_studies = read_study_models(artifacts, cfg.smooth_mm)
    try:
        slices, models = read_models(artifacts, cfg.smooth_mm)
    except NothingUsableError:
        if of_studies is None:
            raise
        return _build_by_study(cfg, artifacts, *of_studies, out, seed)
    cut = dict(scopes(slices, models))
    scored: dict[str, Any] = {"out_of_fold": None, "held_out": None}
    scored |= {name: score(scope, samples=cfg.bootstrap, seed=seed) for name, scope in cut.items()}
    for name, figures in scored.items():
        if figures is not None:
            figures["study"]["spread"] = network_spread(artifacts) if name == "held_out" else None
    headline = "held_out" if scored["held_out"] else "out_of_fold"
    metrics = {"scope": headline, **scored[headline], **scored}
    if of_studies is not None:
        metrics |= {"unit": "slices", "study_level": _study_level(cfg, *of_studies, seed)}
    write_json(out / "metrics.json", metrics)
    final = (of_studies or (slices, models))[1]
    points = _points((of_studies or (slices,))[0], list(final.values())[-1]) if "stack" in artifacts else None
    if points is not None:
        write_json(out / FILE, points.model_dump(mode="json"))
    strips = _strips(PixelCache(artifacts["cache"].folder), slices, models, headline, cfg.strips)
    _report(cfg, artifacts, out, cut, metrics, strips, points, seed)
    return BuildSummary({"slices scored": metrics["counts"]["slices"]}, {})


def _build_by_study(
    cfg: EvaluateConfig,
    artifacts: Mapping[str, Artifact],
    studies: pl.DataFrame,
    models: dict[str, Floats],
    out: Path,
    seed: int,
) -> BuildSummary:
    """Score a run without labels of slices: every row is a study, with its highest probability."""
    say("evaluate", "no slice has a label of its own: the figures are of studies")
    cut = dict(scopes(studies, models))
    scored: dict[str, Any] = {"out_of_fold": None, "held_out": None}
    scored |= _study_level(cfg, studies, models, seed)
    for figures in scored.values():
        if figures is not None:
            figures["study"]["spread"] = None
    headline = "held_out" if scored["held_out"] else "out_of_fold"
    metrics = {"scope": headline, **scored[headline], **scored, "unit": "studies"}
    write_json(out / "metrics.json", metrics)
    points = _points(studies, list(models.values())[-1]) if "stack" in artifacts else None
    if points is not None:
        write_json(out / FILE, points.model_dump(mode="json"))
    _report(cfg, artifacts, out, cut, metrics, [], points, seed)
    return BuildSummary({"studies scored": metrics["counts"]["studies"]}, {})


def _study_level(
    cfg: EvaluateConfig, studies: pl.DataFrame, models: dict[str, Floats], seed: int
) -> dict[str, Any]:
    """Figures of studies by scope: the label of a study against its highest probability."""
    found = {}
    for name, scope in scopes(studies, models):
        labelled = dict(zip(CLASSES, np.isfinite(scope.labels).sum(0).tolist(), strict=True))
        found[name] = score(scope, samples=cfg.bootstrap, seed=seed) | {"labelled": labelled}
    return found


def _report(
    cfg: EvaluateConfig,
    artifacts: Mapping[str, Artifact],
    out: Path,
    cut: Mapping[str, Scope],
    metrics: dict[str, Any],
    strips: list[dict[str, str]],
    points: OperatingPoints | None,
    seed: int,
) -> None:
    """Write the report and print its tables."""
    aside = [read_table(artifacts[s].file("quarantine.parquet"), QUARANTINE) for s in ("index", "cache")]
    configs = {artifact.folder.name: artifact.manifest.config for artifact in artifacts.values()}
    configs["6_evaluate"] = {**cfg.model_dump(mode="json"), "seed": seed}
    write_run_report(out / "report.html", cut, metrics, strips, pl.concat(aside), configs, points)
    show(metrics)


def _points(slices: pl.DataFrame, p: Floats) -> OperatingPoints:
    """Thresholds of the final model, from (slice, 6) or (study, 6) probabilities."""
    labels, folds = label_array(slices), slices["fold"].to_numpy()
    first, (truth, highest) = by_study(slices["study"].to_numpy().astype(str), labels, p)
    return operating_points(truth, highest, folds[first])


def _strips(
    cache: PixelCache, slices: pl.DataFrame, models: dict[str, Floats], scope: str, count: int
) -> list[dict[str, str]]:
    """A few studies of the headline scope, drawn from the cache; a slab takes the labels of its slices.

    Unknown classes are not shaded.
    """
    mine = (pl.col("fold") == -1) if scope == "held_out" else (pl.col("fold") >= 0)
    top = pl.DataFrame(list(models.values())[-1], schema=[f"p_{c}" for c in CLASSES])
    rows = pl.concat([slices, top], how="horizontal").filter(mine)
    drawn = []
    for study, why in pick_studies(rows, rows.select(top.columns).to_numpy(), count):
        slabs = rows.filter(pl.col("study") == study).group_by("slab").max().sort("slab")
        volume, at = cache.read(study), slabs["slab"].to_numpy()
        figure = study_strip(
            volume.hu[at],
            volume.z_mm[at],
            slabs.select(top.columns).to_numpy(),
            slabs.select(CLASSES).fill_null(0).to_numpy(),
        )
        drawn.append({"why": why, "figure": figure})
    return drawn


def show(metrics: dict[str, Any]) -> None:
    """Print models and classes of ``metrics.json`` as tables of under 100 columns."""
    scope = metrics["scope"].replace("_", " ")
    models = _table(
        f"baselines and models, {scope}; 95 % intervals over patients",
        "model",
        ("log loss", "", "change", ""),
    )
    for below, (name, model) in zip([None, *metrics["models"]], metrics["models"].items(), strict=False):
        step = metrics["differences"].get(f"{below}->{name}")
        change = (f"{step['difference']:+.4f}", _span(step, "+.4f")) if step else ("", "")
        models.add_row(name, f"{model['log_loss']:.4f}", _span(model, ".4f"), *change)
    shown = [
        model for model in metrics["models"] if model != "stack" or "calibrated" not in metrics["models"]
    ]
    columns = ("share", *shown, "AUC", "AP")
    classes = _table("log loss by class; AUC and average precision of the last model", "class", columns)
    for name, figures in metrics["classes"].items():
        losses = (f"{figures['log_loss'][model]:.4f}" for model in shown)
        areas = ("-" if figures[k] is None else f"{figures[k]:.3f}" for k in ("auc", "average_precision"))
        classes.add_row(name, f"{figures['prevalence']:.3f}", *losses, *areas)
    for table in (models, classes):
        console.print(table, soft_wrap=False)


def _table(title: str, first: str, columns: tuple[str, ...]) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, min_width=len(title) + 4
    )
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _span(row: dict[str, float], form: str) -> str:
    return f"{row['low']:{form}} to {row['high']:{form}}"
