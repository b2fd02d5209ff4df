"""Figures of scores as inline SVG elements.

All figures are drawn from ``metrics.json``, except the ROC and precision-recall curves.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsna_seq.arrays import Floats
from rsna_seq.labels import CLASSES, COLOURS
from rsna_seq.report.canvas import INK, LINE, SOFT, canvas, svg

Figures = Mapping[str, Mapping[str, float]]
"""Figures by model or by step, each with ``low`` and ``high``."""
_POINTS = 300
"""Largest number of points of a curve, which limits the size of the page."""
_BETTER, _WORSE, _UNCLEAR = COLOURS["intraventricular"], COLOURS["epidural"], SOFT
_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99)
_EDGE = 5e-4
"""Axis limit of the reliability diagram, as a probability; values beyond it are clipped to it."""


def models_figure(models: Figures) -> str:
    """Draw the log loss of each model with its interval.

    Args:
        models: ``log_loss``, ``low`` and ``high`` by model, in the order of the pipeline.
    """
    figure, axes = canvas(5.0, 0.42 * len(models) + 0.75, 0.8)
    _dots(axes, models, "log_loss", COLOURS["subarachnoid"], "{:.4f}")
    axes.set_xlim(0, 1.18 * max(model["high"] for model in models.values()))
    axes.set_xlabel("log loss; lower is better")
    return svg(figure, "log loss of each model with its 95 % interval")


def steps_figure(differences: Figures) -> str:
    """Draw the paired change of log loss of each step with its interval; below zero is an improvement.

    Args:
        differences: ``difference``, ``low`` and ``high`` by step, such as ``cnn->sequence``.
    """
    figure, axes = canvas(5.0, 0.42 * len(differences) + 0.75, 1.5)
    axes.axvline(0, color=SOFT, linewidth=1)
    named = {name.replace("->", " → "): step for name, step in differences.items()}
    colours = [
        _BETTER if step["high"] < 0 else _WORSE if step["low"] > 0 else _UNCLEAR for step in named.values()
    ]
    _dots(axes, named, "difference", colours, "{:+.4f}")
    ends = [abs(step[k]) for step in differences.values() for k in ("low", "high")]
    reach = 1.15 * max([*ends, 1e-6])
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_locator(_few(5))
    axes.set_xlabel("change of log loss; below zero is better")
    return svg(figure, "change of log loss between models with its 95 % interval")


def class_figure(name: str, models: Figures) -> str:
    """Draw the log loss of one class for every model; the prior is a dotted line if it is in the axis range.

    Args:
        name: The class.
        models: ``log_loss``, ``low`` and ``high`` by model, in the order of the pipeline.
    """
    above = {model: figures for model, figures in models.items() if model != "prior"} or models
    figure, axes = canvas(3.3, 0.3 * len(above) + 0.65, 0.7, 0.3, 0.3)
    _dots(axes, above, "log_loss", COLOURS[name], "{:.4f}", size=8)
    right = 1.35 * max(figures["high"] for figures in above.values())
    axes.set_xlim(0, max(right, 1e-6))
    if "prior" in models and models["prior"]["log_loss"] <= right:
        axes.axvline(models["prior"]["log_loss"], color=SOFT, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set_title(name, loc="left", fontsize=10, color=INK, weight="bold")
    axes.xaxis.set_major_locator(_few(4))
    return svg(figure, f"log loss of {name} for each model with its 95 % interval")


def _dots(axes: Any, rows: Figures, key: str, colour: str | list[str], form: str, size: float = 9) -> None:
    """Draw a dot, its value and an interval per row, the first row on top."""
    at = np.arange(len(rows))[::-1]
    value, low, high = (np.array([row[k] for row in rows.values()]) for k in (key, "low", "high"))
    axes.hlines(at, low, high, color=colour, linewidth=3, alpha=0.35, capstyle="round")
    axes.scatter(value, at, s=32, color=colour, zorder=3)
    for x, y in zip(value, at, strict=True):
        words = form.format(x).replace("-", "−")
        axes.annotate(words, (x, y), (0, 5), textcoords="offset points", ha="center", fontsize=size - 0.5)
    axes.set_yticks(at, list(rows), color=INK, fontsize=size)
    axes.set_ylim(-0.5, len(rows) - 0.35)
    axes.tick_params(axis="y", length=0)


def _few(count: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count)


def reliability_figure(
    name: str, bins: Mapping[str, Sequence[Mapping[str, float]]], unit: str = "slices"
) -> str:
    """Draw the reliability diagram of one class: observed frequency against predicted probability.

    Both axes are linear in the logit.

    Args:
        name: The class.
        bins: Bins by model (:func:`rsna_seq.scoring.scores.reliability`); the last model is drawn on top.
        unit: ``slices`` or ``studies``.
    """
    figure, axes = canvas(3.3, 3.1, 0.6, 0.3)
    ends = _logit(np.array([_EDGE, 1 - _EDGE]))
    axes.plot(ends, ends, color=LINE, linewidth=1.2)
    for model in bins:
        front = model == list(bins)[-1]
        x, y, low, high = (
            _logit(np.array([b[k] for b in bins[model]])) for k in ("predicted", "observed", "low", "high")
        )
        colour = COLOURS[name] if front else "#b4bdc5"
        axes.vlines(x, low, high, color=colour, linewidth=1.6 if front else 1, alpha=0.45)
        axes.plot(x, y, "o-", color=colour, linewidth=1.4 if front else 1, markersize=4, label=model)
    ticks = _logit(np.array(_TICKS))
    axes.set_xticks(ticks, [f"{t:g}" for t in _TICKS])
    axes.set_yticks(ticks, [f"{t:g}" for t in _TICKS])
    axes.set(xlim=ends * 1.03, ylim=ends * 1.03, xlabel="predicted probability", ylabel="observed frequency")
    title = name if unit == "slices" else f"{name}, {unit}"
    axes.set_title(title, loc="left", fontsize=10, color=INK, weight="bold")
    axes.legend(frameon=False, fontsize=8, loc="upper left", handlelength=1.4)
    return svg(figure, f"reliability of {name} over {unit}: observed frequency against predicted probability")


def _logit(share: Floats) -> Floats:
    inside = np.clip(share, _EDGE, 1 - _EDGE)
    logit: Floats = np.log(inside / (1 - inside))
    return logit


def roc_figure(labels: NDArray[np.generic], probabilities: Floats) -> str:
    """Draw the ROC curve of every class with positive and negative slices, with its area.

    Args:
        labels: (slice, 6); NaN where unknown.
        probabilities: (slice, 6).
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    figure, axes = canvas(5.0, 4.3, 0.55)
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.2)
    for c, name in enumerate(CLASSES):
        known = np.isfinite(labels[:, c])
        truth, p = labels[known, c], probabilities[known, c]
        if 0 < truth.sum() < len(truth):
            false, true, _ = roc_curve(truth, p)
            axes.plot(
                *_thinned(false, true), color=COLOURS[name], label=f"{name} {roc_auc_score(truth, p):.3f}"
            )
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1), ylim=(0, 1.01))
    _legend(axes, "lower right")
    return svg(figure, "ROC curves of slices by class")


def precision_figure(labels: NDArray[np.generic], probabilities: Floats) -> str:
    """Draw precision against recall of every class with positive and negative slices.

    The legend gives the average precision.

    Args:
        labels: (slice, 6).
        probabilities: (slice, 6).
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    figure, axes = canvas(5.0, 4.3, 0.55)
    for c, name in enumerate(CLASSES):
        known = np.isfinite(labels[:, c])
        truth, p = labels[known, c], probabilities[known, c]
        if 0 < truth.sum() < len(truth):
            precision, recall, _ = precision_recall_curve(truth, p)
            area = average_precision_score(truth, p)
            axes.plot(*_thinned(recall, precision), color=COLOURS[name], label=f"{name} {area:.3f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01))
    _legend(axes, "lower left")
    return svg(figure, "precision against recall of slices by class")


def _legend(axes: Any, place: str) -> None:
    """Add a legend, or a note if no class has a curve."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8.5, loc=place)
    else:
        note = "no class has both positive and negative slices"
        axes.text(0.5, 0.5, note, color=SOFT, ha="center", transform=axes.transAxes)


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Reduce a curve to at most ``_POINTS`` points, evenly spaced along its length."""
    if len(x) <= _POINTS:
        return x, y
    length = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], _POINTS)).clip(0, len(x) - 1))
    return x[kept], y[kept]
