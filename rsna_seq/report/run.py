"""Evaluation report of a run: scores of each model, figures and example studies."""

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
from rsna_seq.scoring.operating_points import OperatingPoints
from rsna_seq.scoring.scores import Scope
from rsna_seq.store.provenance import commit, package_version

_ONE_TYPE = 2
"""Positive classes of a study with a single type of haemorrhage: the type and ``any``."""


def write_run_report(
    out: Path,
    scopes: Mapping[str, Scope],
    metrics: Mapping[str, Any],
    strips: Sequence[Mapping[str, str]],
    excluded: pl.DataFrame,
    configs: Mapping[str, Mapping[str, Any]],
    points: OperatingPoints | None,
) -> None:
    """Write ``report.html``, with the headline scope first.

    Args:
        out: Output file.
        scopes: ``out_of_fold`` and, if patients were held out, ``held_out``.
        metrics: Content of ``metrics.json``.
        strips: Example studies: ``why`` the study was selected, and its ``figure``.
        excluded: QUARANTINE of index and cache.
        configs: Config of each stage, by folder.
        points: Thresholds of the final model; None where ``stack`` is not finished.
    """
    order = sorted(scopes, key=lambda name: name != metrics["scope"])
    render(
        "run.html.j2",
        out,
        scope=metrics["scope"],
        unit=metrics.get("unit", "slices"),
        study_level=metrics.get("study_level", {}),
        pages=[_page(name, scopes[name], metrics[name]) for name in order],
        strips=[{**s, "figure": markup(s["figure"])} for s in strips],
        reasons=reasons_of(excluded),
        config=yaml.safe_dump({k: dict(v) for k, v in configs.items()}, sort_keys=False),
        seed=configs["6_evaluate"].get("seed"),
        smooth_mm=configs["6_evaluate"].get("smooth_mm"),
        bootstrap=configs["6_evaluate"].get("bootstrap"),
        points=points.criteria if points else {},
        version=package_version(),
        commit=commit(),
    )


def _page(name: str, scope: Scope, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the template variables of one scope."""
    models = scores["models"]
    near = [f"{a}->{b}" for a, b in pairwise(models) if a != "prior"]  # that difference would set the scale
    whole = (f"cnn->{model}" for model in ("sequence", list(models)[-1]))  # the gain of using the whole study
    steps = near + [step for step in whole if step in scores["differences"]]
    chosen = {step: scores["differences"][step] for step in dict.fromkeys(steps)}
    known = [c for c in CLASSES if c in scores["classes"]]
    return {
        "scope": name,
        "scores": scores,
        "steps": chosen,
        "top": list(models)[-1],
        "gain": _gain(scores, list(models)[-1]),
        "models": markup(models_figure(models)),
        "changes": markup(steps_figure(chosen)) if chosen else None,
        "classes": [markup(class_figure(c, scores["classes"][c]["models"])) for c in known],
        "reliability": [markup(reliability_figure(c, scores["classes"][c]["reliability"])) for c in known],
        "study_reliability": markup(_study_reliability(scores, list(models)[-1])),
        "roc": markup(roc_figure(scope.labels, scope.top)),
        "precision": markup(precision_figure(scope.labels, scope.top)),
    }


def _study_reliability(scores: Mapping[str, Any], top: str) -> str:
    """Draw the reliability diagram of ``any`` over studies."""
    found = scores["study"]["classes"].get("any", {"reliability": []})
    return reliability_figure("any", {top: found["reliability"]}, "studies")


def _gain(scores: Mapping[str, Any], top: str) -> dict[str, Any] | None:
    """Compare the final model with the CNN: paired difference, ratio and verdict."""
    step = scores["differences"].get(f"cnn->{top}")
    if step is None or top == "smoothed":
        return None
    verdict = "lower" if step["high"] < 0 else "higher" if step["low"] > 0 else "not clearly different"
    ratio = scores["models"][top]["log_loss"] / scores["models"]["cnn"]["log_loss"]
    return {**step, "top": top, "verdict": verdict, "ratio": ratio}


def pick_studies(slices: pl.DataFrame, answers: Floats, count: int) -> list[tuple[str, str]]:
    """Select example studies, in turn by four criteria, the most extreme study of each first.

    The criteria are: several types of haemorrhage, the largest error, and the smallest error of a negative
    and of a positive study. The error is the mean absolute error of ``any``.

    Args:
        slices: study and the six labels, one row per slice.
        answers: (slice, 6) probabilities of the final model.
        count: Number of studies.

    Returns:
        StudyInstanceUID and the criterion; every study occurs once.
    """
    wrong = pl.Series("wrong", np.abs(answers[:, ANY] - slices["any"].to_numpy()), nan_to_null=True)
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
        "several types of haemorrhage": positive.filter(pl.col("kinds") > _ONE_TYPE).sort(
            "kinds", "study", descending=[True, False]
        ),
        "large error of any": table.sort(order, descending=[True, False]),
        "no haemorrhage, small error": negative.sort(order),
        "haemorrhage, small error": positive.sort(order),
    }
    queues = [(why, iter(studies["study"].to_list())) for why, studies in ranked.items()]
    picked: dict[str, str] = {}
    for why, queue in islice(cycle(queues), len(queues) * count):
        study = next((s for s in queue if s not in picked), None)
        if study is not None and len(picked) < count:
            picked[study] = why
    return list(picked.items())
