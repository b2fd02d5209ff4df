"""``evaluate``: what the stages left, scored.

1. The ladder (:mod:`rsna_seq.ladder`): prior, CNN, CNN smoothed along z, sequence, stack, slice by slice.
2. Scores (:mod:`rsna_seq.scores`): the official metric and its interval over patients, class by class, out of
   fold and, where patients were held out, on them.
3. ``metrics.json``, ``report.html``, and a table on the screen.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray
from rich.table import Table

from rsna_seq.artifacts import MANIFEST, Key, Manifest, Receipt, ensure, read_manifest, write_json
from rsna_seq.config import EvaluateConfig
from rsna_seq.console import console
from rsna_seq.errors import IntegrityError
from rsna_seq.imaging.volume import PixelCache
from rsna_seq.labels import CLASSES
from rsna_seq.ladder import read_ladder, scopes
from rsna_seq.provenance import commit, package_version, source_digest
from rsna_seq.report.figures import ladder_figure, reliability_figure, roc_figure, study_strip
from rsna_seq.report.page import markup, pick_studies, reasons_of, render
from rsna_seq.scores import Scope, score
from rsna_seq.tables import QUARANTINE, read_table

Floats = NDArray[np.float64]

_INPUTS = ("1_index", "2_cache", "3_embed", "4_sequence", "5_stack")


def run(cfg: EvaluateConfig, run: Path, out: Path, *, seed: int = 0, rebuild: bool = False) -> Manifest:
    """Score a run, as far as it has come.

    Args:
        cfg: Bootstrap, smoothing, strips.
        run: The run's folder.
        out: The folder ``6_evaluate``.
        seed: Seed of the bootstrap.
        rebuild: Score anew what is there.

    Raises:
        IntegrityError: Not even ``embed`` is finished.
    """
    inputs = {
        name: read_manifest(run / name).content for name in _INPUTS if (run / name / MANIFEST).is_file()
    }
    if "3_embed" not in inputs:
        raise IntegrityError(f"{run}: embed is not finished; there is nothing to score")
    key = Key("evaluate", {**cfg.model_dump(mode="json"), "seed": seed}, inputs, source_digest(__name__))
    return ensure(out, key, lambda folder: _build(cfg, run, folder, seed), rebuild=rebuild)


def _build(cfg: EvaluateConfig, run: Path, out: Path, seed: int) -> Receipt:
    slices, rungs = read_ladder(run, cfg.smooth_mm)
    scored: dict[str, Any] = {"out_of_fold": None, "held_out": None}
    for name, scope in scopes(slices, rungs):
        scored[name] = score(scope, samples=cfg.bootstrap, seed=seed)
    headline = "held_out" if scored["held_out"] else "out_of_fold"
    metrics = {"scope": headline, **scored[headline], **scored}
    write_json(out / "metrics.json", metrics)
    _report(cfg, run, slices, rungs, scored, out / "report.html", seed)
    show(metrics)
    return Receipt({"slices scored": metrics["counts"]["slices"]}, {})


_WORDS = {
    "held_out": ("Held out", "Patients that no stage has seen: these are the figures to quote."),
    "out_of_fold": ("Out of fold", "Each slice is answered by networks that never saw its patient."),
}


def _report(
    cfg: EvaluateConfig,
    run: Path,
    slices: pl.DataFrame,
    rungs: dict[str, Floats],
    scored: dict[str, Any],
    out: Path,
    seed: int,
) -> None:
    """Write ``report.html``, the headline scope first."""
    top = list(rungs.values())[-1]
    pages = [_scope_page(name, scope, scored[name]) for name, scope in scopes(slices, rungs)]
    cache = PixelCache(run / "2_cache")
    strips = [
        {"why": why, "figure": _strip(cache, study, slices, top)}
        for study, why in pick_studies(slices.select("study", *CLASSES), top, cfg.strips)
    ]
    aside = [read_table(run / f / "quarantine.parquet", QUARANTINE) for f in ("1_index", "2_cache")]
    configs = {
        name: read_manifest(run / name).config for name in _INPUTS if (run / name / MANIFEST).is_file()
    }
    render(
        "run.html.j2",
        out,
        scopes=pages[::-1],
        strips=strips,
        reasons=reasons_of(pl.concat(aside)),
        config=yaml.safe_dump(configs, sort_keys=False),
        version=package_version(),
        commit=commit(),
        seed=seed,
    )


def _scope_page(name: str, scope: Scope, scores: dict[str, Any]) -> dict[str, Any]:
    top = list(scope.rungs.values())[-1]
    title, words = _WORDS[name]
    return {
        "title": title,
        "words": words,
        "scores": scores,
        "ladder": markup(ladder_figure(scores["ladder"])),
        "reliability": markup(reliability_figure(scope.labels, top)),
        "roc": markup(roc_figure(scope.labels, top)),
    }


def _strip(cache: PixelCache, study: str, slices: pl.DataFrame, answers: Floats) -> Any:
    """The strip of one study; a slab stands for its first slice."""
    mine = (
        slices.with_row_index("at").filter(pl.col("study") == study).unique("slab", keep="first").sort("slab")
    )
    volume = cache.read(study)
    figure = study_strip(
        volume.hu, volume.z_mm, answers[mine["at"].to_numpy()], mine.select(CLASSES).to_numpy()
    )
    return markup(figure)


def show(metrics: dict[str, Any]) -> None:
    """Print the ladder and the classes of ``metrics.json`` as tables."""
    ladder = Table(title=f"log loss, {metrics['scope'].replace('_', ' ')}, 95 % interval over patients")
    for column in ("rung", "log loss", "from", "to"):
        ladder.add_column(column, justify="left" if column == "rung" else "right")
    for name, rung in metrics["ladder"].items():
        ladder.add_row(name, *(f"{rung[k]:.4f}" for k in ("log_loss", "low", "high")))
    classes = Table(title="log loss by class; AUC and average precision (AP) of the last rung")
    for column in ("class", "share", *metrics["ladder"], "AUC", "AP"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    for name, figures in metrics["classes"].items():
        losses = (f"{figures['log_loss'][rung]:.4f}" for rung in metrics["ladder"])
        areas = ("-" if figures[k] is None else f"{figures[k]:.3f}" for k in ("auc", "average_precision"))
        classes.add_row(name, f"{figures['prevalence']:.3f}", *losses, *areas)
    console.print(ladder)
    console.print(classes)
