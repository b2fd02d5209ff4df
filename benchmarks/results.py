"""Results of the speed benchmarks as a Markdown table with bars and as a figure."""

import math
import re
from pathlib import Path
from typing import Any

from harness import MISSING, figure_of, verdict

BENCHES = (
    "index",
    "order",
    "cache",
    "read",
    "embed",
    "sequence",
    "stack",
    "predict",
    "watch",
    "memory",
    "scaling",
    "gpu",
)
"""Order of running and reporting. ``gpu`` is measured only where there is a GPU."""
_BAR = 20
_SPAN = 4.0
"""Ratio to the target of a full bar; half a bar is the target."""


_WHY = {
    (
        "index",
        "8 kB of each file",
    ): "in addition to reading, the stage lists the files with their status, parses numbers and text, and "
    "orders all studies",
    (
        "cache",
        "read, resize, write",
    ): "in addition, the stage converts to HU, computes a digest per shard and a hash per slice, and writes "
    "the tables",
    ("sequence", "batches of four"): "an epoch is faster, but larger batches take fewer steps and need more "
    "epochs for the same loss",
    (
        "memory",
        "limit",
    ): "about 40 values per header, mainly names and UIDs, are kept in memory for all studies, sorted and "
    "joined",
    (
        "memory",
        "a tenth of the studies",
    ): "memory for pixels is constant; the tables of slices and slabs grow with the number of studies",
    (
        "scaling",
        "one worker",
    ): "the first chunk is read by one process, to measure the rate; the imports of a "
    "worker take two seconds; both workers share the memory bandwidth",
}
"""Why a target is missed, by benchmark and peer."""
_TICKS = (0.25, 0.5, 1, 2, 4)
_NO_GPU = "No GPU was at hand: nothing was measured on a GPU."


def slug(text: str) -> str:
    """Convert text to a file name."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def bar(goodness: float | None) -> str:
    """Draw a bar on a logarithmic scale, with a mark in its middle for the target."""
    if goodness is None or goodness <= 0:
        return ""
    share = 0.5 + 0.5 * math.log(goodness) / math.log(_SPAN)
    filled = round(min(1.0, max(0.0, share)) * _BAR)
    cells = ["█"] * filled + ["░"] * (_BAR - filled)
    cells.insert(_BAR // 2, "│")
    return "".join(cells)


def goodness(row: dict[str, Any]) -> float | None:
    """Return the ratio to the target; 1 meets the target exactly, larger is better."""
    value = row["ratio"] if row["theirs"] is not None else row["ours"]
    if row["target"] is None or row["rule"] is None or not value or row["note"] == MISSING:
        return None
    good: float = value / row["target"] if row["rule"] == "least" else row["target"] / value
    return good


def markdown(results: dict[str, Any]) -> str:
    """Format the results as a Markdown page."""
    results = results | {
        "benches": {name: results["benches"][name] for name in BENCHES if name in results["benches"]}
    }
    rows = [row for bench in results["benches"].values() for row in bench["rows"]]
    missed = sum(row["met"] is False for row in rows)
    met = sum(row["met"] is True for row in rows)
    lines = [
        f"# Speed on {results['machine']}",
        "",
        f"{results['date']}{', toy sizes' if results['toy'] else ''}: {met} targets met, {missed} missed. "
        "Ratios are ratios of medians over rounds in which both ran in turn. "
        f"The mark in a bar is the target; the bar ranges from 1/{_SPAN:g} to {_SPAN:g} times the target.",
        "",
        "| bench | row | against | ours | theirs | ratio | target | | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, bench in results["benches"].items():
        lines += [_line(name, row) for row in bench["rows"]]
    lines += [*_reasons(results), "", _gpu_line(results["benches"].get("gpu"))]
    lines += [
        "",
        "| bench | size | cores | rounds | clock | peak MB | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {b['size']:,} {b['unit']} | {b['cores']} | {b['repeats']} | {b['clock']} "
        f"| {b['peak_mb']:,.0f} | {b['seconds']:,.0f} |"
        for name, b in results["benches"].items()
    ]
    lines += [f"\nFailed: {', '.join(results['failed'])}"] if results["failed"] else []
    versions = {k: v for bench in results["benches"].values() for k, v in bench["versions"].items()}
    return "\n".join([*lines, "", ", ".join(f"{k} {v}" for k, v in versions.items()), ""])


def _gpu_line(bench: dict[str, Any] | None) -> str:
    """Say on which GPU the rows of ``gpu`` were measured, or that nothing was."""
    if bench is None or bench["device"] == "cpu":
        return _NO_GPU
    return f"The rows of gpu were measured on one {bench['device']}, in bf16 and channels-last layout."


def _reasons(results: dict[str, Any]) -> list[str]:
    """Explain the missed targets."""
    missed = [
        (name, row)
        for name, bench in results["benches"].items()
        for row in bench["rows"]
        if row["met"] is False
    ]
    words = [
        f"- {name}, {row['name']} / {row['peer']}: {_WHY[name, row['peer']]}."
        for name, row in missed
        if (name, row["peer"]) in _WHY
    ]
    return ["", "Reasons for missed targets:", "", *words] if words else []


def _line(name: str, row: dict[str, Any]) -> str:
    sign = {"least": "≥", "most": "≤"}.get(row["rule"] or "", "")
    target = f"{sign} {figure_of(row['target'])}" if row["target"] is not None else ""
    ours = f"{figure_of(row['ours'])} {row['unit']}" if row["ours"] is not None else "-"
    note = "" if row["note"] == MISSING else row["note"]
    remarks = "; ".join(t for t in (verdict(row["met"], row["note"]), note) if t)
    cells = [name, row["name"], row["peer"], ours, figure_of(row["theirs"]), figure_of(row["ratio"]), target]
    return f"| {' | '.join([*cells, bar(goodness(row)), remarks])} |"


def write_figure(results: dict[str, Any], path: Path) -> None:
    """Draw the rows with a target as horizontal bars, in multiples of the target.

    Args:
        results: Results, as written by ``run_all``.
        path: Output SVG file; equal figures give equal bytes.
    """
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    found = results["benches"]
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
        axes.set_title(f"{results['machine']}, {results['date']}")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
