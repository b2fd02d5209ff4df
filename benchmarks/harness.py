"""Measurement and output of all speed benchmarks.

1. The script restarts itself on the cores of the benchmark, because thread pools are sized at import.
2. :func:`race` runs all contenders of a row in turn, for several rounds, and takes the median per contender.
   Imports and the preparation of input files are not timed; files are in the page cache. ``--clock cpu``
   measures CPU time instead of wall time: more reliable on a shared machine, but it ignores waiting for the
   disk.
3. A :class:`Row` compares our figure with a peer and with a target. :func:`main` prints a table, the peak
   memory and, as the last line, everything as JSON.
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
"""Environment variable that is set after the restart on the benchmark's cores."""
MISSING = "not installed (pip install -e .[peers])"
_PACKAGES = (
    *("rsna-seq", "numpy", "polars", "pandas", "pydicom", "torch", "opencv-python-headless"),
    *("dicomsdl", "fastai", "monai", "SimpleITK", "zarr", "timm", "lightgbm"),
)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")


class PeerMissingError(Exception):
    """The package of a peer is not installed."""


@dataclass(frozen=True)
class Options:
    """Command-line options."""

    size: int
    repeats: int
    toy: bool
    data: Path
    """Folder in which phantoms are kept between benchmarks."""
    clock: str = "wall"
    """``wall`` or ``cpu``."""

    @property
    def matrix(self) -> int:
        """Rows and columns of a phantom slice."""
        return 128 if self.toy else 512

    def now(self) -> float:
        """Return the time of the selected clock in seconds."""
        return time.process_time() if self.clock == "cpu" else time.perf_counter()


@dataclass(frozen=True)
class Bench:
    """One benchmark script."""

    name: str
    unit: str
    """Unit of ``--size``."""
    size: int
    toy: int
    measure: Callable[[Options], "list[Row]"]
    cores: int = 1
    device: Callable[[], str] = lambda: "cpu"
    """Name of the device that computes."""


@dataclass(frozen=True)
class Row:
    """Comparison of our figure with a peer and a target.

    Attributes:
        name: Measured task.
        peer: Name of the peer or of the limit.
        unit: Unit of ``ours`` and ``theirs``.
        ours: Our figure; None if the peer is not installed.
        theirs: Figure of the peer; None if it is not installed or the target is not a ratio.
        target: Target for the ratio or, without ``theirs``, for our figure.
        rule: ``least`` or ``most``: whether the target is a minimum or a maximum; None for information only.
        note: Remark for the reader.
        figures: Further figures by name, for the JSON file.
    """

    name: str
    peer: str
    unit: str
    ours: float | None
    theirs: float | None = None
    target: float | None = None
    rule: str | None = "least"
    note: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """``ours`` divided by ``theirs``."""
        return self.ours / self.theirs if self.ours is not None and self.theirs else None

    @property
    def value(self) -> float | None:
        """Value that is compared with the target."""
        return self.ratio if self.theirs is not None else self.ours

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without target or figure."""
        if self.rule is None or self.target is None or self.value is None or self.note == MISSING:
            return None
        return self.value >= self.target if self.rule == "least" else self.value <= self.target


@dataclass
class Timing:
    """Seconds per round."""

    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median over the rounds, in seconds."""
        return statistics.median(self.rounds)


def race(
    contenders: Mapping[str, Callable[[], object]],
    options: Options,
    *,
    before: Callable[[], object] | None = None,
    rounds: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """Time all contenders in turn in every round.

    Args:
        contenders: Functions by name. Each has already run once, because outputs are compared first.
        options: Rounds and clock.
        before: Function to call before each contender, outside the timing.
        rounds: Smaller number of rounds for slow contenders, by name.

    Returns:
        Median seconds by name.
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
    """Return whether a peer's package is installed."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def absent(name: str, peer: str, unit: str, target: float) -> Row:
    """Return the row of a peer that is not installed."""
    return Row(name, peer, unit, None, None, target, note=MISSING)


def peak_mb() -> float:
    """Return the peak resident memory of this process, in MB."""
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
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def machine() -> str:
    """Return the processor model and the number of cores."""
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
    if options.toy:  # toy sizes are not compared with targets
        rows = [replace(row, rule=None) for row in rows]
    seconds = time.perf_counter() - start
    print(table(f"{bench.name}: {options.size:,} {bench.unit}", rows))
    print(f"peak memory {peak_mb():,.0f} MB, {seconds:.1f} s in total, cores: {len(cores())}")
    print(json.dumps(_report(bench, options, rows, seconds), sort_keys=True))
    return 0


def table(title: str, rows: list[Row]) -> str:
    """Format the rows as a text table."""
    head = ("row", "peer", "ours", "theirs", "ratio", "target", "")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([title, *lines])


def figure_of(value: float | None) -> str:
    """Format a figure with three significant digits."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def verdict(met: bool | None, note: str) -> str:
    """Return ``met``, ``missed``, or why the target was not checked."""
    return "met" if met else "missed" if met is False else note if note == MISSING else ""


def _cells(row: Row) -> tuple[str, ...]:
    sign = {"least": "≥", "most": "≤"}.get(row.rule or "", "")
    target = "" if row.target is None else f"{sign} {figure_of(row.target)}"
    remarks = [verdict(row.met, row.note), "" if row.note == MISSING else row.note]
    ours = f"{figure_of(row.ours)} {row.unit}" if row.ours is not None else "-"
    ratio = figure_of(row.ratio)
    return row.name, row.peer, ours, figure_of(row.theirs), ratio, target, "; ".join(t for t in remarks if t)


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
        "device": bench.device(),
        "rows": [{**asdict(row), "ratio": row.ratio, "met": row.met} for row in rows],
        "peak_mb": round(peak_mb(), 1),
        "seconds": round(seconds, 2),
        "versions": {"python": platform.python_version(), **versions},
    }


def _settle(count: int) -> None:
    """Restart this script on the given number of cores, unless it has been restarted already."""
    if os.environ.get(SETTLED):
        return
    environment = {**os.environ, SETTLED: "1", **dict.fromkeys(_THREADS, str(count))}
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores()[-count:])
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _parse(bench: Bench, argv: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(description=f"Speed of {bench.name}.")
    parser.add_argument("--size", type=int, help=f"number of {bench.unit}; default {bench.size:,}")
    parser.add_argument(
        "--repeats", type=int, help="number of rounds, of which the median is used; default 5"
    )
    parser.add_argument("--toy", action="store_true", help="smallest size, one round: checks that it runs")
    home = Path(tempfile.gettempdir()) / "rsna_seq_bench"
    parser.add_argument("--data", type=Path, default=home, help="folder in which phantoms are kept")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="wall time or CPU time")
    asked = parser.parse_args(argv)
    size = asked.size or (bench.toy if asked.toy else bench.size)
    return Options(size, asked.repeats or (1 if asked.toy else 5), asked.toy, asked.data, asked.clock)
