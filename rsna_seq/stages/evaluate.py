"""``evaluate``: what the stages left, scored.

1. The ladder (:mod:`rsna_seq.ladder`): prior, CNN, CNN smoothed along z, sequence, stack, slice by slice.
2. Scores (:mod:`rsna_seq.scores`): the official metric and its interval over patients, class by class, out of
   fold and, where patients were held out, on them.
3. ``metrics.json``, ``report.html``, and a table on the screen.
"""

from pathlib import Path
from typing import Any

from rich.table import Table

from rsna_seq.artifacts import Key, Manifest, Receipt, ensure, read_manifest, write_json
from rsna_seq.config import EvaluateConfig
from rsna_seq.console import console
from rsna_seq.errors import IntegrityError
from rsna_seq.ladder import read_ladder, scopes
from rsna_seq.provenance import source_digest
from rsna_seq.scores import score

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
        name: read_manifest(run / name).content
        for name in _INPUTS
        if (run / name / "manifest.json").is_file()
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
    show(metrics)
    return Receipt({"slices scored": metrics["counts"]["slices"]}, {})


def show(metrics: dict[str, Any]) -> None:
    """Print the ladder and the classes of ``metrics.json`` as tables."""
    ladder = Table(title=f"log loss, {metrics['scope'].replace('_', ' ')}, 95 % interval over patients")
    for column in ("rung", "log loss", "from", "to"):
        ladder.add_column(column, justify="left" if column == "rung" else "right")
    for name, rung in metrics["ladder"].items():
        ladder.add_row(name, *(f"{rung[k]:.4f}" for k in ("log_loss", "low", "high")))
    classes = Table(title="classes")
    for column in ("class", "prevalence", *metrics["ladder"], "AUC", "average precision"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    for name, figures in metrics["classes"].items():
        losses = (f"{figures['log_loss'][rung]:.4f}" for rung in metrics["ladder"])
        areas = ("-" if figures[k] is None else f"{figures[k]:.3f}" for k in ("auc", "average_precision"))
        classes.add_row(name, f"{figures['prevalence']:.3f}", *losses, *areas)
    console.print(ladder)
    console.print(classes)
