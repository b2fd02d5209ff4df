"""Time of ``index`` and ``cache`` in this checkout against another commit, through the command line.

    python benchmarks/compare_commits.py COMMIT [--rounds 8] [--files 10000] [--slices 680]

The machine's speed varies by more than a change of a few per cent, so the two checkouts take turns:

1. The commit is checked out into a temporary git worktree; both read the same files.
2. In each round, a process per checkout imports its package, runs the stage once, and then five times with
   ``--rebuild``; the CPU time of the five is its figure. The order changes from round to round.
3. The ratio is the median over the rounds of this checkout's time to the commit's, in pairs, with a 95 %
   interval from a bootstrap over the rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from harness import Options, machine
from phantoms import plain, templates, write_copies

REPOSITORY = Path(__file__).resolve().parents[1]
_REPEATS = 5
_STAGES = ("index", "cache")
_CHILD = f"""
import contextlib, io, sys, time
from rsna_seq.__main__ import app
words = sys.argv[1:]
def once():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        app(words, standalone_mode=False)
once()
start = time.process_time()
for _ in range({_REPEATS}):
    once()
print((time.process_time() - start) / {_REPEATS})
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the two stages; the last line is everything as JSON."""
    asked = _parse(argv)
    options = Options(asked.files, asked.rounds, asked.toy, asked.data)
    report: dict[str, object] = {
        "bench": "compare_commits",
        "commit": asked.commit,
        "machine": machine(),
        "rounds": asked.rounds,
    }
    asked.data.mkdir(parents=True, exist_ok=True)
    with _worktree(asked.commit) as other, tempfile.TemporaryDirectory(dir=asked.data) as scratch:
        for stage in asked.stages:
            files = asked.files if stage == "index" else asked.slices
            data = Path(scratch) / stage
            write_copies(plain(templates(options)), files, data)
            pairs = _race(stage, data, other, asked.rounds, asked.here)
            report[stage] = figures = _figures(pairs)
            print(
                f"{stage}, {files:,} slices: {figures['here']:.4f} s here, {figures['there']:.4f} s at "
                f"{asked.commit}, ratio {figures['ratio']:.3f} [{figures['low']:.3f}, {figures['high']:.3f}]"
            )
    print(json.dumps(report, sort_keys=True))
    return 0


def _race(stage: str, data: Path, other: Path, rounds: int, here: list[str]) -> list[tuple[float, float]]:
    """CPU seconds of this checkout and of the other, per round."""
    pairs = []
    for turn in range(rounds):
        order = (REPOSITORY, other) if turn % 2 else (other, REPOSITORY)
        seconds = {tree: _seconds(stage, data, tree, here if tree == REPOSITORY else []) for tree in order}
        pairs.append((seconds[REPOSITORY], seconds[other]))
    return pairs


def _seconds(stage: str, data: Path, tree: Path, more: list[str]) -> float:
    """Run the stage in a process of its own with the package of ``tree``; return its CPU seconds."""
    out = data.with_name(f"run_{tree.name}")
    words = ["--out", str(out), f"data.root={data}", "workers=1", *more]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}

    def child(name: str, *extra: str) -> str:
        command = [sys.executable, "-c", _CHILD, name, *words, *extra]
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{stage} of {tree} failed:\n{done.stderr[-2000:]}")
        return done.stdout

    if stage == "cache":
        child("index")
        words += ["cache.size=256", "cache.crop=false", "cache.thin_mm=0"]
    return float(child(stage, "--rebuild"))


def _figures(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Medians, and the ratio with its interval."""
    ratios = np.array([here / there for here, there in pairs])
    drawn = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return {
        "here": statistics.median(here for here, _ in pairs),
        "there": statistics.median(there for _, there in pairs),
        "ratio": float(np.median(ratios)),
        "low": float(low),
        "high": float(high),
    }


@contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    """Check a commit out into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "there"
        git = ["git", "-C", str(REPOSITORY), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commit", help="commit to compare this checkout with")
    parser.add_argument("--stages", nargs="*", choices=_STAGES, default=_STAGES)
    parser.add_argument("--rounds", type=int, default=8, help="pairs of processes")
    parser.add_argument("--files", type=int, default=10_000, help="files for index")
    parser.add_argument("--slices", type=int, default=680, help="slices for cache")
    parser.add_argument("--toy", action="store_true", help="small phantoms")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "rsna_seq_bench")
    parser.add_argument(
        "--here", nargs="*", default=[], metavar="KEY=VALUE", help="config of this checkout only"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
