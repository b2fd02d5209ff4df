"""The page of a run: what each model brings, by figures and by a few studies."""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from rsna_seq.arrays import Floats
from rsna_seq.labels import ANY, CLASSES
from rsna_seq.report.figures import (
    class_figure,
    models_figure,
    precision_figure,
    reliability_figure,
    roc_figure,
    steps_figure,
)
from rsna_seq.report.page import markup, reasons_of, render
from rsna_seq.scoring.scores import Scope
from rsna_seq.store.provenance import commit, package_version

_FAR = ("cnn->sequence", "cnn->calibrated")
"""Steps over more than one model that are shown: what the whole study brings to the slice."""
_ONE_KIND = 2
"""Positive classes of a study with one kind of haemorrhage: it and ``any``."""


def write_run_report(
    out: Path,
    scopes: Mapping[str, Scope],
    metrics: Mapping[str, Any],
    strips: Sequence[Mapping[str, str]],
    excluded: pl.DataFrame,
    configs: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write ``report.html``, the headline scope first.

    Args:
        out: The page.
        scopes: ``out_of_fold`` and, where there is one, ``held_out``.
        metrics: What stands in ``metrics.json``.
        strips: ``why`` a study is shown, and its ``figure``.
        excluded: QUARANTINE of index and cache.
        configs: The config of each stage, by folder.
    """
    order = sorted(scopes, key=lambda name: name != metrics["scope"])
    render(
        "run.html.j2",
        out,
        scope=metrics["scope"],
        pages=[_page(name, scopes[name], metrics[name]) for name in order],
        strips=[{**s, "figure": markup(s["figure"])} for s in strips],
        reasons=reasons_of(excluded),
        config=yaml.safe_dump({k: dict(v) for k, v in configs.items()}, sort_keys=False),
        seed=configs["6_evaluate"].get("seed"),
        smooth_mm=configs["6_evaluate"].get("smooth_mm"),
        bootstrap=configs["6_evaluate"].get("bootstrap"),
        version=package_version(),
        commit=commit(),
    )


def _page(name: str, scope: Scope, scores: Mapping[str, Any]) -> dict[str, Any]:
    """What the template needs of one scope."""
    ladder = scores["models"]
    near = [f"{a}->{b}" for a, b in pairwise(ladder) if a != "prior"]  # which dwarfs all others
    steps = near + [step for step in _FAR if step in scores["differences"]]
    chosen = {step: scores["differences"][step] for step in dict.fromkeys(steps)}
    return {
        "scope": name,
        "scores": scores,
        "steps": chosen,
        "top": list(ladder)[-1],
        "brings": _brings(scores, list(ladder)[-1]),
        "models": markup(models_figure(ladder)),
        "changes": markup(steps_figure(chosen)) if chosen else None,
        "classes": [markup(class_figure(c, scores["classes"][c]["models"])) for c in CLASSES],
        "reliability": [markup(reliability_figure(c, scores["classes"][c]["reliability"])) for c in CLASSES],
        "roc": markup(roc_figure(scope.labels, scope.top)),
        "precision": markup(precision_figure(scope.labels, scope.top)),
    }


def _brings(scores: Mapping[str, Any], top: str) -> dict[str, Any] | None:
    """What the whole study brings to the slice: the highest model against the CNN, and the verdict."""
    step = scores["differences"].get(f"cnn->{top}")
    if step is None or top == "smoothed":
        return None
    verdict = "lower" if step["high"] < 0 else "higher" if step["low"] > 0 else "not clearly different"
    ratio = scores["models"][top]["log_loss"] / scores["models"]["cnn"]["log_loss"]
    return {**step, "top": top, "verdict": verdict, "ratio": ratio}


def pick_studies(slices: pl.DataFrame, answers: Floats, count: int) -> list[tuple[str, str]]:
    """Studies that instruct: most classes at once, the hardest, the clearest negative, one read well; again.

    Args:
        slices: study and the six labels, one row a slice.
        answers: (slice, 6) probabilities of the highest model.
        count: How many.

    Returns:
        StudyInstanceUID and why it was picked; a study is picked once.
    """
    wrong = pl.Series("wrong", np.abs(answers[:, ANY] - slices["any"].to_numpy()))
    table = (
        slices.with_columns(wrong)
        .group_by("study", maintain_order=True)
        .agg(
            pl.sum_horizontal(pl.col(c).max() for c in CLASSES).alias("kinds"),
            pl.col("any").max(),
            pl.col("wrong").mean(),
        )
    )
    positive, negative = table.filter(pl.col("any") == 1), table.filter(pl.col("any") == 0)
    order = ["wrong", "study"]
    ranked = {
        "several kinds of haemorrhage": positive.filter(pl.col("kinds") > _ONE_KIND).sort(
            "kinds", "study", descending=[True, False]
        ),
        "a hard one: the answer lies far from the labels": table.sort(order, descending=[True, False]),
        "no haemorrhage": negative.sort(order),
        "a haemorrhage that is read well": positive.sort(order),
    }
    queues = [(why, iter(studies["study"].to_list())) for why, studies in ranked.items()]
    picked: dict[str, str] = {}
    for why, queue in islice(cycle(queues), len(queues) * count):
        study = next((s for s in queue if s not in picked), None)
        if study is not None and len(picked) < count:
            picked[study] = why
    return list(picked.items())
