"""How every benchmark of speed measures, and what it prints.

1. The process is started anew on as many cores as the rows say, for thread pools are sized at import.
2. :func:`race` runs all contenders of a row in turn, round after round; the median of each one's rounds
   counts. Imports, and what the contenders find on the disk, are outside the timing; files are warm.
   ``--clock cpu`` counts the seconds that the process was at work instead of those that passed: nearer to
   the truth where others use the machine, but blind to waiting for the disk.
3. A :class:`Row` sets ours beside the other and beside its target; :func:`main` prints the table, the peak
   of memory, and as the last line everything as JSON.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SETTLED = "RSNA_SEQ_BENCH_SETTLED"
"""Set in the environment of a process that is on its cores already."""
MISSING = "not installed (pip install -e .[peers])"
_PACKAGES = (
    *("rsna-seq", "numpy", "polars", "pandas", "pydicom", "torch", "opencv-python-headless"),
    *("dicomsdl", "fastai", "monai", "SimpleITK", "zarr", "timm", "lightgbm"),
)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")


class PeerMissingError(Exception):
    """A package that is compared with is not installed."""


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    size: int
    repeats: int
    toy: bool
    data: Path
    """Folder that keeps phantoms from one benchmark to the next."""
    clock: str = "wall"
    """``wall`` or ``cpu``."""

    @property
    def matrix(self) -> int:
        """Rows and columns of the phantoms' slices."""
        return 128 if self.toy else 512

    def now(self) -> float:
        """Seconds on the clock."""
        return time.process_time() if self.clock == "cpu" else time.perf_counter()


@dataclass(frozen=True)
class Bench:
    """One benchmark script."""

    name: str
    unit: str
    """What ``--size`` counts."""
    size: int
    toy: int
    measure: Callable[[Options], "list[Row]"]
    cores: int = 1


@dataclass(frozen=True)
class Row:
    """Ours beside another, and beside a target.

    Attributes:
        name: What is done.
        peer: Who else does it, or what the limit is.
        unit: Of ``ours`` and ``theirs``.
        ours: Our figure.
        theirs: The peer's; None where it is not installed, or the target is no ratio.
        target: What the ratio (or, without ``theirs``, our figure) is to reach.
        rule: ``least`` or ``most``; None is told for information.
        note: What a reader has to know.
    """

    name: str
    peer: str
    unit: str
    ours: float | None
    theirs: float | None = None
    target: float | None = None
    rule: str | None = "least"
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over theirs."""
        return self.ours / self.theirs if self.ours is not None and self.theirs else None

    @property
    def value(self) -> float | None:
        """What the target is about."""
        return self.ratio if self.theirs is not None else self.ours

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none, or no figure."""
        if self.rule is None or self.target is None or self.value is None or self.note == MISSING:
            return None
        return self.value >= self.target if self.rule == "least" else self.value <= self.target


@dataclass
class Timing:
    """Seconds of each round."""

    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The round in the middle."""
        return statistics.median(self.rounds)


def race(
    contenders: Mapping[str, Callable[[], object]],
    options: Options,
    *,
    before: Callable[[], object] | None = None,
    rounds: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """Median seconds of each contender, all in turn in every round.

    Args:
        contenders: What is run, by name; equal outputs have been asserted, so each has run once.
        options: Rounds and clock.
        before: Run before each contender, outside the timing.
        rounds: Fewer rounds for slow contenders, by name.
    """
    timings = {name: Timing() for name in contenders}
    for turn in range(options.repeats):
        for name, run in contenders.items():
            if turn >= (rounds or {}).get(name, options.repeats):
                continue
            if before is not None:
                before()
            start = options.now()
            run()
            timings[name].rounds.append(options.now() - start)
    return {name: timing.median for name, timing in timings.items()}


def installed(package: str) -> bool:
    """Whether a peer's package is there."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def absent(name: str, peer: str, unit: str, target: float) -> Row:
    """The row of a peer that is not installed."""
    return Row(name, peer, unit, None, None, target, note=MISSING)


def peak_mb() -> float:
    """Highest resident memory of this process so far, in MB."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    import resource

    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    )


def cores() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def machine() -> str:
    """Model of the processor and number of cores, and nothing else about the machine."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores"


def main(bench: Bench, argv: list[str] | None = None) -> int:
    """Run one benchmark as a script."""
    options = _parse(bench, argv)
    _settle(bench.cores)
    start = time.perf_counter()
    rows = bench.measure(options)
    if options.toy:  # so small, nothing is told of speed
        rows = [replace(row, rule=None) for row in rows]
    seconds = time.perf_counter() - start
    print(table(f"{bench.name}: {options.size:,} {bench.unit}", rows))
    print(f"peak memory {peak_mb():,.0f} MB, {seconds:.1f} s in all, cores {len(cores())}")
    print(json.dumps(_report(bench, options, rows, seconds), sort_keys=True))
    return 0


def table(title: str, rows: list[Row]) -> str:
    """A small table for people."""
    head = ("row", "peer", "ours", "theirs", "ratio", "target", "")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([title, *lines])


def figure_of(value: float | None) -> str:
    """A figure with three significant digits."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def verdict(met: bool | None, note: str) -> str:
    """``met``, ``short``, or why there is neither."""
    return "met" if met else "short" if met is False else note if note == MISSING else ""


def _cells(row: Row) -> tuple[str, ...]:
    sign = {"least": "≥", "most": "≤"}.get(row.rule or "", "")
    target = "" if row.target is None else f"{sign} {figure_of(row.target)}"
    told = [verdict(row.met, row.note), "" if row.note == MISSING else row.note]
    ours = f"{figure_of(row.ours)} {row.unit}" if row.ours is not None else "-"
    ratio = figure_of(row.ratio)
    return row.name, row.peer, ours, figure_of(row.theirs), ratio, target, "; ".join(t for t in told if t)


def _report(bench: Bench, options: Options, rows: list[Row], seconds: float) -> dict[str, Any]:
    versions = {name: version(name) for name in _PACKAGES if installed(name)}
    return {
        "bench": bench.name,
        "size": options.size,
        "unit": bench.unit,
        "repeats": options.repeats,
        "clock": options.clock,
        "cores": len(cores()),
        "machine": machine(),
        "rows": [{**asdict(row), "ratio": row.ratio, "met": row.met} for row in rows],
        "peak_mb": round(peak_mb(), 1),
        "seconds": round(seconds, 2),
        "versions": {"python": platform.python_version(), **versions},
    }


def _settle(count: int) -> None:
    """Start this script anew on so many cores, unless it is there already."""
    if os.environ.get(SETTLED):
        return
    environment = {**os.environ, SETTLED: "1", **dict.fromkeys(_THREADS, str(count))}
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores()[-count:])
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _parse(bench: Bench, argv: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(description=f"Speed of {bench.name}.")
    parser.add_argument("--size", type=int, help=f"{bench.unit}; {bench.size:,}")
    parser.add_argument("--repeats", type=int, help="rounds, of which the median counts; 5")
    parser.add_argument("--toy", action="store_true", help="as small as it goes, one round")
    home = Path(tempfile.gettempdir()) / "rsna_seq_bench"
    parser.add_argument("--data", type=Path, default=home, help="keeps the phantoms")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="what is counted")
    asked = parser.parse_args(argv)
    size = asked.size or (bench.toy if asked.toy else bench.size)
    return Options(size, asked.repeats or (1 if asked.toy else 5), asked.toy, asked.data, asked.clock)
