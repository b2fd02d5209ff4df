"""Overview of one study: slices side by side, above the probabilities along z."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rsna_seq.arrays import Floats
from rsna_seq.imaging.windows import WINDOWS, apply_window
from rsna_seq.labels import ANY, CLASSES, COLOURS
from rsna_seq.report.canvas import INK, LINE, quiet, svg

_SHOWN = 10
"""Largest number of slices side by side."""
_SIDE = 120
"""Rows and columns of a drawn slice, in pixels."""
_WIDTH, _LEFT, _RIGHT = 10.0, 1.25, 0.1
_CURVES, _LANES, _AXIS, _KEY = 1.9, 0.85, 0.5, 0.3
"""Heights of the parts, in inches."""


def study_strip(
    hu: NDArray[np.int16], z_mm: Floats, probabilities: Floats, labels: NDArray[np.generic] | None = None
) -> str:
    """Draw slices in the brain window above the six probabilities along z, and the labels below.

    Slices are placed at their z position. Positions where ``any`` is labelled are shaded, and each class has
    a row that is filled where its label is 1.

    Args:
        hu: (slab, y, x) HU.
        z_mm: (slab,) positions in mm, ascending.
        probabilities: (slab, 6).
        labels: (slab, 6), or None for an unlabelled study.

    Returns:
        An SVG element.
    """
    from matplotlib.figure import Figure

    wide = _WIDTH - _LEFT - _RIGHT
    edges = _edges(z_mm)
    shown = min(_SHOWN, len(hu))
    tile = min(wide / shown, 1.4)
    lanes = _LANES if labels is not None else 0.0
    height = _AXIS + lanes + _CURVES + _KEY + tile
    figure = Figure(figsize=(_WIDTH, height))

    def axes_at(bottom: float, tall: float) -> Any:
        return figure.add_axes((_LEFT / _WIDTH, bottom / height, wide / _WIDTH, tall / height))

    _slices(axes_at(_AXIS + lanes + _CURVES + _KEY, tile), hu, z_mm, edges, tile / wide)
    curves = axes_at(_AXIS + lanes, _CURVES)
    _curves(curves, z_mm, probabilities, labels, edges)
    lowest = curves
    if labels is not None:
        curves.tick_params(labelbottom=False, bottom=False)
        lowest = axes_at(_AXIS, lanes)
        _lanes(lowest, labels, edges)
    lowest.set_xlabel("z in mm, from the skull base to the vertex")
    return svg(figure, "slices of a study and the probability of each class along z")


def _edges(z_mm: Floats) -> Floats:
    """Return (slab + 1,) borders, half-way between neighbours, in mm."""
    if len(z_mm) == 1:
        return np.array([z_mm[0] - 2.5, z_mm[0] + 2.5])
    middle = (z_mm[1:] + z_mm[:-1]) / 2
    return np.concatenate([[2 * z_mm[0] - middle[0]], middle, [2 * z_mm[-1] - middle[-1]]])


def _slices(axes: Any, hu: NDArray[np.int16], z_mm: Floats, edges: Floats, share: float) -> None:
    """Draw the nearest slice at evenly spaced positions along z."""
    low, high = edges[0], edges[-1]
    n, width = min(_SHOWN, len(hu)), share * (high - low)
    for centre in low + (np.arange(n) + 0.5) / n * (high - low):
        image = apply_window(hu[np.abs(z_mm - centre).argmin()], *WINDOWS["brain"])
        small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        axes.imshow(
            (small * 255).astype(np.uint8),
            cmap="gray",
            vmin=0,
            vmax=255,
            extent=(centre - width / 2, centre + width / 2, 0, 1),
            interpolation="none",
            aspect="auto",
        )
    axes.set(xlim=(low, high), ylim=(0, 1))
    axes.set_axis_off()


def _curves(axes: Any, z_mm: Floats, p: Floats, labels: NDArray[np.generic] | None, edges: Floats) -> None:
    """Draw the six probabilities along z, shaded where ``any`` is labelled."""
    if labels is not None:
        turns = np.flatnonzero(np.diff(labels[:, ANY].astype(int), prepend=0, append=0))
        for start, end in turns.reshape(-1, 2):
            axes.axvspan(edges[start], edges[end], color="#f3ead9", linewidth=0)
    axes.axhline(0.5, color=LINE, linewidth=0.8)
    for c, name in enumerate(CLASSES):
        front = name == "any"
        axes.plot(
            z_mm,
            p[:, c],
            color=COLOURS[name],
            label=name,
            linewidth=2.2 if front else 1.6,
            linestyle=(0, (4, 1.5)) if front else "-",  # any often coincides with another class
            marker=".",
            markersize=4,
        )
    quiet(axes)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(-0.03, 1.03), ylabel="probability", yticks=(0, 0.5, 1))
    axes.legend(
        frameon=False, fontsize=9, ncols=6, loc="lower left", bbox_to_anchor=(-0.01, 0.98), handlelength=1.6
    )


def _lanes(axes: Any, labels: NDArray[np.generic], edges: Floats) -> None:
    """Draw one row per class, filled where its label is 1."""
    for c, name in enumerate(CLASSES):
        axes.axhline(-c, color=LINE, linewidth=0.6, zorder=0)
        there = np.flatnonzero(labels[:, c])
        axes.barh(
            np.full(len(there), -c),
            np.diff(edges)[there],
            left=edges[there],
            height=0.62,
            color=COLOURS[name],
            edgecolor="white",
            linewidth=0.5,
        )
    quiet(axes)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(-len(CLASSES) + 0.4, 0.6))
    axes.set_yticks(-np.arange(len(CLASSES)), CLASSES, fontsize=8)
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=8)
    axes.spines["left"].set_visible(False)
