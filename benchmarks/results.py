"""What the benchmarks found, as a Markdown table with bars and as a figure."""

import math
import re
from pathlib import Path
from typing import Any

from harness import MISSING, figure_of, verdict

BENCHES = ("index", "order", "cache", "read", "embed", "sequence", "stack", "predict", "memory", "scaling")
"""In the order in which they are run and told."""
_BAR = 20
_SPAN = 4.0
"""A full bar is so many times the target, half a bar is the target."""


_WHY = {
    (
        "index",
        "8 kB of each file",
    ): "beside the read stand a listing with the status of every file, the parsing "
    "of numbers and texts, and the ordering of all studies",
    (
        "cache",
        "read, resize, write",
    ): "beside the floor stand the shift to HU, a digest of every shard, a hash "
    "of every slice, and the tables",
    ("sequence", "batches of four"): "an epoch is quicker, but larger batches take fewer steps and need more "
    "epochs to the same loss",
    (
        "memory",
        "limit",
    ): "some forty values a header, names and UIDs most of all, are held for all studies at "
    "once, sorted and joined",
    (
        "memory",
        "a tenth of the studies",
    ): "pixels are flat; the tables of slices and slabs grow with the studies",
    ("scaling", "one worker"): "the first lot is read alone, to learn the pace; a worker's imports take two "
    "seconds; both share the memory's bandwidth",
}
"""Why a target is short, by benchmark and peer."""
_TICKS = (0.25, 0.5, 1, 2, 4)
_NO_GPU = "No GPU was at hand: nothing was measured on one, and nothing is claimed."


def slug(text: str) -> str:
    """A name for a file."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def bar(goodness: float | None) -> str:
    """A bar on a logarithmic scale; the target is a stroke in its middle."""
    if goodness is None or goodness <= 0:
        return ""
    share = 0.5 + 0.5 * math.log(goodness) / math.log(_SPAN)
    filled = round(min(1.0, max(0.0, share)) * _BAR)
    cells = ["█"] * filled + ["░"] * (_BAR - filled)
    cells.insert(_BAR // 2, "│")
    return "".join(cells)


def goodness(row: dict[str, Any]) -> float | None:
    """How many times the target is reached; 1 is just reached."""
    value = row["ratio"] if row["theirs"] is not None else row["ours"]
    if row["target"] is None or row["rule"] is None or not value or row["note"] == MISSING:
        return None
    good: float = value / row["target"] if row["rule"] == "least" else row["target"] / value
    return good


def markdown(told: dict[str, Any]) -> str:
    """The whole as a page."""
    told = told | {"benches": {name: told["benches"][name] for name in BENCHES if name in told["benches"]}}
    rows = [row for bench in told["benches"].values() for row in bench["rows"]]
    short = sum(row["met"] is False for row in rows)
    met = sum(row["met"] is True for row in rows)
    lines = [
        f"# Speed on {told['machine']}",
        "",
        f"{told['date']}{', toy sizes' if told['toy'] else ''}: {met} targets met, {short} short. "
        "Ratios are of medians of rounds in which both ran in turn. "
        f"The stroke in a bar is the target, its ends are a {_SPAN:g}th and {_SPAN:g} times of it.",
        "",
        "| bench | row | against | ours | theirs | ratio | target | | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, bench in told["benches"].items():
        lines += [_line(name, row) for row in bench["rows"]]
    lines += [*_reasons(told), "", _NO_GPU]
    lines += [
        "",
        "| bench | size | cores | rounds | clock | peak MB | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {b['size']:,} {b['unit']} | {b['cores']} | {b['repeats']} | {b['clock']} "
        f"| {b['peak_mb']:,.0f} | {b['seconds']:,.0f} |"
        for name, b in told["benches"].items()
    ]
    lines += [f"\nFailed: {', '.join(told['failed'])}"] if told["failed"] else []
    versions = {k: v for bench in told["benches"].values() for k, v in bench["versions"].items()}
    return "\n".join([*lines, "", ", ".join(f"{k} {v}" for k, v in versions.items()), ""])


def _reasons(told: dict[str, Any]) -> list[str]:
    """What stands between a short row and its target."""
    short = [
        (name, row) for name, bench in told["benches"].items() for row in bench["rows"] if row["met"] is False
    ]
    words = [
        f"- {name}, {row['name']} / {row['peer']}: {_WHY[name, row['peer']]}."
        for name, row in short
        if (name, row["peer"]) in _WHY
    ]
    return ["", "Why some are short:", "", *words] if words else []


def _line(name: str, row: dict[str, Any]) -> str:
    sign = {"least": "≥", "most": "≤"}.get(row["rule"] or "", "")
    target = f"{sign} {figure_of(row['target'])}" if row["target"] is not None else ""
    ours = f"{figure_of(row['ours'])} {row['unit']}" if row["ours"] is not None else "-"
    note = "" if row["note"] == MISSING else row["note"]
    told = "; ".join(t for t in (verdict(row["met"], row["note"]), note) if t)
    cells = [name, row["name"], row["peer"], ours, figure_of(row["theirs"]), figure_of(row["ratio"]), target]
    return f"| {' | '.join([*cells, bar(goodness(row)), told])} |"


def write_figure(told: dict[str, Any], path: Path) -> None:
    """The rows that have a target as horizontal bars, in multiples of it.

    Args:
        told: What ``run_all`` writes.
        path: An SVG file; equal figures make equal bytes.
    """
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    found = told["benches"]
    rows = [(name, row) for name in BENCHES if name in found for row in found[name]["rows"]]
    bars = [(f"{name}: {row['name']} / {row['peer']}, {row['unit']}", goodness(row)) for name, row in rows]
    shown = [(label, good) for label, good in bars if good is not None][::-1]
    with mpl.rc_context({"svg.hashsalt": "rsna_seq", "font.size": 8, "font.family": "sans-serif"}):
        figure, axes = plt.subplots(figsize=(8, 0.6 + 0.22 * len(shown)), layout="constrained")
        colours = ["#2a7f62" if good >= 1 else "#c2571a" for _, good in shown]
        axes.barh([label for label, _ in shown], [good - 1 for _, good in shown], left=1, color=colours)
        axes.set_xscale("log")
        axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
        axes.minorticks_off()
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xlabel("multiples of the target")
        axes.set_title(f"{told['machine']}, {told['date']}")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
