"""Shared parts of all figures: colours, axes style and inline SVG."""

import html
import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, SOFT, LINE = "#1d2731", "#5d6b78", "#dde3e8"


def canvas(
    width: float, height: float, left: float, top: float = 0.1, bottom: float = 0.5
) -> "tuple[Figure, Any]":
    """Create a figure with one pair of axes, without changing matplotlib's global state.

    Args:
        width: Width of the figure, in inches.
        height: Height of the figure, in inches.
        left: Left margin for tick labels, in inches. It is passed because an automatic layout takes twice as
            long.
        top: Top margin for a title, in inches.
        bottom: Bottom margin for ticks and axis label, in inches.

    Returns:
        Figure and axes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    right = 0.12
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    )
    quiet(axes)
    return figure, axes


def quiet(axes: Any) -> None:
    """Hide the top and right spines, and draw ticks and labels in light colours."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=SOFT, labelsize=8.5, length=3, color=LINE)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=SOFT, fontsize=9)


def svg(figure: "Figure", words: str) -> str:
    """Render a figure as an SVG element; equal figures give equal bytes, and text stays text.

    Args:
        figure: Figure to render.
        words: Alternative text for screen readers.
    """
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "rsna_seq", "svg.fonttype": "none", "svg.image_inline": True}):
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)  # contains only links to schemas
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{html.escape(words)}" ', 1)
