"""Output of the quality benchmark: intervals, targets, tables and a figure.

A "way" is a model of the package or a peer.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from rsna_seq.labels import COLOURS
from rsna_seq.report.canvas import INK, SOFT, canvas, svg
from rsna_seq.scoring.bootstrap import Bootstrap
from rsna_seq.scoring.metric import Interval, slice_losses
from rsna_seq.scoring.scores import Scope

Floats = NDArray[np.float64]
FLAT, CNN, GRU, STACK = "2D CNN", "2.5D CNN", "GRU (ours)", "stack (ours)"
CLEAR = ("gaussian smoothing", "lightgbm alone", "two LSTMs")
"""Peers for which the whole interval of the paired difference must be below zero."""
_TIE = 1e-6
"""Tolerance for a stack that refines no class: it copies the logits, which may differ by rounding."""


class Losses:
    """The official metric per slice for every way, with shared bootstrap samples of patients.

    Args:
        scope: Slices that are scored together; its models are the ways.
        samples: Number of bootstrap samples.
        seed: Seed of the bootstrap.
    """

    def __init__(self, scope: Scope, samples: int, seed: int) -> None:
        self.ways = {name: slice_losses(scope.labels, p) for name, p in scope.models.items()}
        self.draws = Bootstrap(scope.patients, samples, seed)
        self.counts = {
            "slices": len(scope.labels),
            "studies": len(np.unique(scope.studies)),
            "patients": len(self.draws.names),
        }

    @classmethod
    def over(cls, seeds: Sequence["Losses"]) -> "Losses":
        """Average the losses of each slice over seeds; the bootstrap samples are those of the first seed."""
        pooled = copy(seeds[0])
        pooled.ways = {name: np.mean([s.ways[name] for s in seeds], axis=0) for name in pooled.ways}
        return pooled

    def mean(self, way: str) -> Interval:
        """Compute the log loss of a way."""
        return self.draws.mean(self.ways[way])

    def gap(self, way: str, other: str, share: float = 1.0) -> Interval:
        """Compute the paired difference: log loss of a way minus ``share`` times the log loss of another."""
        return self.draws.mean(self.ways[way] - share * self.ways[other])

    def ratio(self, way: str, other: str) -> float:
        """Compute the log loss of a way divided by that of another."""
        return float(self.ways[way].mean() / self.ways[other].mean())

    @property
    def peers(self) -> list[str]:
        """Ways that are not models of this package."""
        return [w for w in self.ways if w not in {"prior", FLAT, CNN, GRU, STACK}]


@dataclass(frozen=True)
class Target:
    """A target and whether it is met.

    Attributes:
        name: Description of the target.
        scope: Scope in which it is checked.
        gap: Difference that must not be above zero, with its interval; None if it cannot be measured.
        met: Whether it is met; None if it cannot be measured.
        words: The figure as text.
    """

    name: str
    scope: str
    gap: Interval | None
    met: bool | None
    words: str


def targets(scopes: Mapping[str, Losses]) -> list[Target]:
    """Check all targets; ratios and peers are compared out of fold.

    Args:
        scopes: ``out_of_fold`` and, if patients were held out, ``held_out``.
    """
    seen = scopes["out_of_fold"]
    found = [
        _share(seen, CNN, FLAT, 0.92),
        _share(seen, GRU, CNN, 0.85),
        *(_below(seen, "out of fold", GRU, peer, clear=peer in CLEAR) for peer in seen.peers),
        *(_never_worse(losses, name.replace("_", " ")) for name, losses in scopes.items()),
        _share(seen, STACK, FLAT, 0.75),
        _share(seen, STACK, CNN, 0.77),
    ]
    unseen = scopes.get("held_out")
    if unseen is None:
        name = f"{GRU} below {CNN}, interval below 0"
        return [*found, Target(name, "held out", None, None, "no patient was held out")]
    return [*found, _below(unseen, "held out", GRU, CNN, clear=True)]


def _share(losses: Losses, way: str, other: str, share: float) -> Target:
    gap = losses.gap(way, other, share)
    name = f"{way} <= {share} x {other}"
    return Target(name, "out of fold", gap, gap.value <= 0, f"ratio {losses.ratio(way, other):.3f}")


def _below(losses: Losses, scope: str, way: str, other: str, *, clear: bool) -> Target:
    gap = losses.gap(way, other)
    name = f"{way} below {other}" + (", interval below 0" if clear else "")
    return Target(name, scope, gap, (gap.high if clear else gap.value) < 0, _span(gap, signed=True))


def _never_worse(losses: Losses, scope: str) -> Target:
    gap = losses.gap(STACK, GRU)
    return Target(f"{STACK} never worse than {GRU}", scope, gap, gap.value <= _TIE, _span(gap, signed=True))


def ways_table(name: str, losses: Losses) -> Table:
    """Tabulate the log loss of every way, and the paired differences to the 2.5D CNN and to our GRU."""
    counts = ", ".join(f"{n:,} {what}" for what, n in losses.counts.items())
    title = f"log loss {name.replace('_', ' ')} ({counts}); 95 % intervals over patients"
    table = _table(title, "model", "log loss", f"minus {CNN}", f"minus {GRU}")
    for way in losses.ways:
        table.add_row(
            way,
            _span(losses.mean(way)),
            "" if way == CNN else _span(losses.gap(way, CNN), signed=True),
            "" if way == GRU else _span(losses.gap(way, GRU), signed=True),
        )
    return table


def pool(seeds: Sequence[Mapping[str, Losses]]) -> dict[str, Losses]:
    """Average the losses over the seeds, by scope; patients are drawn, seeds are not."""
    return {name: Losses.over([s[name] for s in seeds]) for name in seeds[0]}


def targets_table(seeds: Sequence[Mapping[str, Losses]]) -> Table:
    """Tabulate the targets on the losses averaged over the seeds, and the number of seeds that meet each."""
    table = _table("targets", "target", "scope", "figure", "", *(["seeds"] if len(seeds) > 1 else []))
    for whole, *row in zip(targets(pool(seeds)), *map(targets, seeds), strict=True):
        met = sum(t.met is True for t in row)
        verdict = "not measured" if whole.met is None else "met" if whole.met else "missed"
        shares = [f"{met} of {len(row)}"] if len(row) > 1 else []
        table.add_row(whole.name, whole.scope, whole.words, verdict, *shares)
    return table


def seeds_table(scope: str, seeds: list[Mapping[str, Losses]]) -> Table:
    """Tabulate mean and standard deviation over the seeds for all models above the CNN."""
    title = f"log loss {scope.replace('_', ' ')} over {len(seeds)} seeds, same CNN"
    table = _table(title, "model", "mean", "standard deviation", "minimum to maximum", f"mean minus {GRU}")
    pooled = pool(seeds)[scope]
    for way, row in spread(scope, seeds).items():
        table.add_row(
            way,
            f"{row['mean']:.4f}",
            f"{row['sd']:.4f}",
            f"{row['lowest']:.4f} to {row['highest']:.4f}",
            "" if way == GRU else _span(pooled.gap(way, GRU), signed=True),
        )
    return table


def spread(scope: str, seeds: Sequence[Mapping[str, Losses]]) -> dict[str, dict[str, Any]]:
    """Compute mean, standard deviation, minimum and maximum log loss of each way that depends on the seed."""
    rows: dict[str, dict[str, Any]] = {}
    pooled = pool(seeds)[scope]
    for way in [*pooled.peers, GRU, STACK]:
        losses = np.array([s[scope].ways[way].mean() for s in seeds])
        rows[way] = {
            "mean": float(losses.mean()),
            "sd": float(losses.std(ddof=1)) if len(losses) > 1 else 0.0,
            "lowest": float(losses.min()),
            "highest": float(losses.max()),
            "less_gru": _named(pooled.gap(way, GRU)),
        }
    return rows


def plain(scopes: Mapping[str, Losses]) -> dict[str, Any]:
    """Return all figures of the scopes as plain data."""
    return {
        name: {
            "counts": losses.counts,
            "ways": {
                way: {
                    "log_loss": _named(losses.mean(way)),
                    "less_cnn": _named(losses.gap(way, CNN)),
                    "less_gru": _named(losses.gap(way, GRU)),
                }
                for way in losses.ways
            },
        }
        for name, losses in scopes.items()
    }


def plain_targets(seeds: Sequence[Mapping[str, Losses]]) -> Iterator[dict[str, Any]]:
    """Return the targets as plain data: figures on the mean over the seeds, and verdicts of each seed."""
    for whole, *row in zip(targets(pool(seeds)), *map(targets, seeds), strict=True):
        yield {
            "target": whole.name,
            "scope": whole.scope,
            "gap": None if whole.gap is None else _named(whole.gap),
            "figure": whole.words,
            "met": whole.met,
            "met_by_seed": [t.met for t in row],
        }


def figure(losses: Losses, scope: str) -> str:
    """Draw the log loss of each way, without the prior, as an SVG element; our models are in colour."""
    ways = [w for w in losses.ways if w != "prior"]
    drawn, axes = canvas(6.2, 0.42 * len(ways) + 0.75, 1.5)
    for at, way in enumerate(reversed(ways)):
        value, low, high = losses.mean(way)
        colour = COLOURS["subarachnoid"] if way in {CNN, GRU, STACK} else SOFT
        axes.hlines(at, low, high, color=colour, linewidth=3, alpha=0.35)
        axes.scatter(value, at, s=32, color=colour, zorder=3)
        axes.annotate(
            f"{value:.4f}", (value, at), (0, 5), textcoords="offset points", ha="center", fontsize=8.5
        )
    axes.set_yticks(range(len(ways)), ways[::-1], color=INK, fontsize=9)
    axes.set_ylim(-0.5, len(ways) - 0.35)
    axes.set_xlim(0, 1.12 * max(losses.mean(w).high for w in ways))
    axes.set_xlabel(f"log loss {scope.replace('_', ' ')}, 95 % intervals over patients; lower is better")
    return svg(drawn, f"log loss {scope.replace('_', ' ')} of each model with its 95 % interval")


def _named(interval: Interval) -> dict[str, float]:
    return {name: round(float(x), 6) for name, x in interval._asdict().items()}


def _span(interval: Interval, *, signed: bool = False) -> str:
    form = "+.4f" if signed else ".4f"
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table
