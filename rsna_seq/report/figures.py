"""Figures of scores, drawn from ``metrics.json`` alone but for the curves; each is an inline SVG element."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsna_seq.arrays import Floats
from rsna_seq.labels import CLASSES
from rsna_seq.report.canvas import COLOURS, INK, LINE, SOFT, canvas, svg

Ladder = Mapping[str, Mapping[str, float]]
_POINTS = 300
"""Points that draw a curve: a million slices would make a page of megabytes."""
_BETTER, _WORSE, _UNCLEAR = COLOURS["intraventricular"], COLOURS["epidural"], SOFT
_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99)
_EDGE = 5e-4
"""Where the axes of the reliability diagram end; what lies beyond is drawn there."""


def models_figure(ladder: Ladder) -> str:
    """Log loss of each model with its interval.

    Args:
        ladder: ``log_loss``, ``low`` and ``high`` by model, from below.
    """
    figure, axes = canvas(5.0, 0.42 * len(ladder) + 0.75, 0.8)
    _dots(axes, ladder, "log_loss", COLOURS["subarachnoid"], "{:.4f}")
    axes.set_xlim(0, 1.18 * max(model["high"] for model in ladder.values()))
    axes.set_xlabel("log loss; lower is better")
    return svg(figure, "log loss of each model with its 95 % interval")


def steps_figure(differences: Ladder) -> str:
    """What each step changes, paired, with its interval; left of zero it helps.

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
    axes.set_xlabel("change of log loss; left of zero is better")
    return svg(figure, "change of log loss from model to model with its 95 % interval")


def class_figure(name: str, models: Ladder) -> str:
    """Log loss of one class on every model; the prior, which lies far off, is a line where it is in sight.

    Args:
        name: The class.
        models: ``log_loss``, ``low`` and ``high`` by model, from below.
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
    return svg(figure, f"log loss of {name} on each model with its 95 % interval")


def _dots(axes: Any, rows: Ladder, key: str, colour: str | list[str], form: str, size: float = 9) -> None:
    """A dot and an interval a row, the first on top, the figure beside the dot."""
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


def reliability_figure(name: str, bins: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Observed share against predicted probability of one class, on axes of logits.

    Args:
        name: The class.
        bins: For each model its bins (:func:`rsna_seq.scoring.scores.reliability`); the last is drawn on top.
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
    axes.set(xlim=ends * 1.03, ylim=ends * 1.03, xlabel="predicted probability", ylabel="observed share")
    axes.set_title(name, loc="left", fontsize=10, color=INK, weight="bold")
    axes.legend(frameon=False, fontsize=8, loc="upper left", handlelength=1.4)
    return svg(figure, f"reliability of {name}: observed share against predicted probability")


def _logit(share: Floats) -> Floats:
    inside = np.clip(share, _EDGE, 1 - _EDGE)
    logit: Floats = np.log(inside / (1 - inside))
    return logit


def roc_figure(labels: NDArray[np.generic], probabilities: Floats) -> str:
    """ROC curve of every class that occurs, with its area.

    Args:
        labels: (slice, 6).
        probabilities: (slice, 6).
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    figure, axes = canvas(5.0, 4.3, 0.55)
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.2)
    for c, name in enumerate(CLASSES):
        truth, p = labels[:, c], probabilities[:, c]
        if 0 < truth.sum() < len(truth):
            false, true, _ = roc_curve(truth, p)
            axes.plot(
                *_thinned(false, true), color=COLOURS[name], label=f"{name} {roc_auc_score(truth, p):.3f}"
            )
    axes.set(xlabel="false positive share", ylabel="true positive share", xlim=(-0.01, 1), ylim=(0, 1.01))
    _key(axes, "lower right")
    return svg(figure, "ROC curves of slices, class by class")


def precision_figure(labels: NDArray[np.generic], probabilities: Floats) -> str:
    """Precision against recall of every class that occurs, with its average precision.

    Args:
        labels: (slice, 6).
        probabilities: (slice, 6).
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    figure, axes = canvas(5.0, 4.3, 0.55)
    for c, name in enumerate(CLASSES):
        truth, p = labels[:, c], probabilities[:, c]
        if 0 < truth.sum() < len(truth):
            precision, recall, _ = precision_recall_curve(truth, p)
            area = average_precision_score(truth, p)
            axes.plot(*_thinned(recall, precision), color=COLOURS[name], label=f"{name} {area:.3f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01))
    _key(axes, "lower left")
    return svg(figure, "precision against recall of slices, class by class")


def _key(axes: Any, place: str) -> None:
    """A legend where there is anything to name."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8.5, loc=place)
    else:
        axes.text(0.5, 0.5, "no class occurs here", color=SOFT, ha="center", transform=axes.transAxes)


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most so many points of a curve, evenly along its length."""
    if len(x) <= _POINTS:
        return x, y
    length = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], _POINTS)).clip(0, len(x) - 1))
    return x[kept], y[kept]
