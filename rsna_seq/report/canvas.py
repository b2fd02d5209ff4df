"""What all figures share: colours, a quiet canvas, and SVG that stands in a page of its own."""

import html
import io
import re
from typing import TYPE_CHECKING, Any

from rsna_seq.labels import CLASSES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = dict(zip(CLASSES, ("#d55e00", "#e69f00", "#009e73", "#0072b2", "#cc79a7", "#1d2731"), strict=True))
"""One colour a class, told apart by the colour-blind too (Okabe & Ito 2008); ``any`` is ink."""
INK, SOFT, LINE = "#1d2731", "#5d6b78", "#dde3e8"


def canvas(
    width: float, height: float, left: float, top: float = 0.1, bottom: float = 0.5
) -> "tuple[Figure, Any]":
    """A figure with one pair of axes; no state of matplotlib is touched.

    Args:
        width: Of the figure, in inches.
        height: Of the figure, in inches.
        left: Space for the names on the left, in inches; measuring it takes twice the time.
        top: Space for a title, in inches.
        bottom: Space for ticks and their name, in inches.
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
    """Take away what is no data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=SOFT, labelsize=8.5, length=3, color=LINE)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=SOFT, fontsize=9)


def svg(figure: "Figure", words: str) -> str:
    """The figure as an SVG element: the same bytes each time, no date, its text as text.

    Args:
        figure: What to draw.
        words: What it shows, for those who do not see it.
    """
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "rsna_seq", "svg.fonttype": "none", "svg.image_inline": True}):
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)  # nothing but links to schemas
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{html.escape(words)}" ', 1)
