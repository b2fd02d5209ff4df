"""Figures of the reports, each as an inline SVG or PNG, so that a page needs no other file and no network."""

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsna_seq.imaging.windows import WINDOWS, apply_window
from rsna_seq.labels import CLASSES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
COLOURS = ("#d1495b", "#edae49", "#66a182", "#2e4057", "#8d6b94", "#111111")
"""One colour a class, told apart by the colour-blind too; ``any`` is black."""
_INK = "#22303c"
_SHOWN = 14
"""Slices that fit side by side in a strip."""


def ladder_figure(ladder: Mapping[str, Mapping[str, float]]) -> str:
    """Log loss of each rung with its interval.

    Args:
        ladder: ``log_loss``, ``low`` and ``high`` by rung, from below.
    """
    figure, axes = _canvas(6.4, 0.5 * len(ladder) + 0.9)
    names = list(ladder)
    at = np.arange(len(names))[::-1]
    value, low, high = (np.array([ladder[n][k] for n in names]) for k in ("log_loss", "low", "high"))
    axes.hlines(at, low, high, color=COLOURS[3], linewidth=2.5, alpha=0.5)
    axes.plot(value, at, "o", color=COLOURS[3], markersize=7)
    for x, y in zip(value, at, strict=True):
        axes.annotate(f"{x:.4f}", (x, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
    axes.set_yticks(at, names)
    axes.set_ylim(-0.6, len(names) - 0.3)
    axes.set_xlim(0, None)
    axes.set_xlabel("log loss, lower is better; bars are 95 % intervals over patients")
    return _svg(figure)


def reliability_figure(labels: NDArray[np.generic], probabilities: Floats, bins: int = 8) -> str:
    """Observed frequency against predicted probability, bins of equal count.

    Args:
        labels: (slice, 6).
        probabilities: (slice, 6).
        bins: Bins a class.
    """
    figure, axes = _canvas(4.6, 4.2)
    axes.plot([0, 1], [0, 1], color="#b0b7bd", linewidth=1, linestyle="--")
    for c, name in enumerate(CLASSES):
        order = np.argsort(probabilities[:, c], kind="stable")
        parts = [p for p in np.array_split(order, bins) if len(p)]
        x = [probabilities[p, c].mean() for p in parts]
        axes.plot(x, [labels[p, c].mean() for p in parts], "o-", color=COLOURS[c], label=name, markersize=3.5)
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("observed share")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def roc_figure(labels: NDArray[np.generic], probabilities: Floats) -> str:
    """ROC curve of every class that occurs.

    Args:
        labels: (slice, 6).
        probabilities: (slice, 6).
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    figure, axes = _canvas(4.6, 4.2)
    axes.plot([0, 1], [0, 1], color="#b0b7bd", linewidth=1, linestyle="--")
    for c, name in enumerate(CLASSES):
        truth = labels[:, c]
        if 0 < truth.sum() < len(truth):
            false, true, _ = roc_curve(truth, probabilities[:, c])
            area = roc_auc_score(truth, probabilities[:, c])
            axes.plot(false, true, color=COLOURS[c], label=f"{name} {area:.3f}")
    axes.set_xlabel("false positive share")
    axes.set_ylabel("true positive share")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _svg(figure)


def study_strip(
    hu: NDArray[np.int16], z_mm: Floats, probabilities: Floats, labels: NDArray[np.generic] | None = None
) -> str:
    """A study at a glance: its slices in the brain window, and six curves along z against the labels.

    Args:
        hu: (slab, y, x) HU.
        z_mm: (slab,) positions.
        probabilities: (slab, 6).
        labels: (slab, 6), or None where there are none.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.3), layout="constrained")
    above, axes = figure.subplots(2, 1, height_ratios=(1, 2.1))
    chosen = np.unique(np.linspace(0, len(hu) - 1, min(_SHOWN, len(hu))).round().astype(int))
    above.imshow(
        np.hstack([apply_window(hu[i], *WINDOWS["brain"]) for i in chosen]), cmap="gray", vmin=0, vmax=1
    )
    above.set_axis_off()
    _curves(axes, z_mm, probabilities, labels)
    return _png(figure)


def _curves(axes: Any, z_mm: Floats, probabilities: Floats, labels: NDArray[np.generic] | None) -> None:
    for c, name in enumerate(CLASSES):
        axes.plot(
            z_mm, probabilities[:, c], color=COLOURS[c], label=name, linewidth=2 if name == "any" else 1.4
        )
        if labels is not None:
            there = labels[:, c].astype(bool)
            axes.plot(
                z_mm[there], np.full(there.sum(), 1.05 + 0.045 * c), "s", color=COLOURS[c], markersize=3.5
            )
    if labels is not None:
        axes.axhline(1.02, color="#b0b7bd", linewidth=0.6)
        axes.text(z_mm[0], 1.34, "squares: what is there", fontsize=7.5, color=_INK, va="top")
    axes.set_ylim(-0.02, 1.36 if labels is not None else 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.set_xlabel("z in mm, from the skull base up")
    axes.set_ylabel("probability")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7.5, ncols=6, loc="upper center", bbox_to_anchor=(0.5, 1.2))


def _canvas(width: float, height: float) -> tuple["Figure", Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK)
    return figure, axes


def _svg(figure: "Figure") -> str:
    """The figure as an SVG element that carries no date and the same ids each time."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "rsna_seq", "svg.fonttype": "none", "font.family": "sans-serif"}):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _png(figure: "Figure") -> str:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110, metadata={"Software": None})
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}">'
