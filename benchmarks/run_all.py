"""Run all speed benchmarks and write their results.

    python benchmarks/run_all.py [--toy] [--only index cache] [--repeats 5] [--out benchmarks/results]

Each benchmark runs in its own process. ``MACHINE.json`` contains all figures, ``MACHINE.md`` a table with
bars and ``MACHINE.svg`` a figure; all three include missed targets.
"""

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import machine
from results import BENCHES, markdown, slug, write_figure

HERE = Path(__file__).resolve().parent


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks, print their output and write the results; the exit code is 1 if one failed."""
    asked = _parse(argv)
    options = ["--toy"] if asked.toy else []
    options += ["--repeats", str(asked.repeats)] if asked.repeats else []
    options += ["--clock", asked.clock]
    reports, failed = [], []
    for name in asked.only or _possible(toy=asked.toy):
        report = run_bench(name, options)
        (reports.append(report) if report is not None else failed.append(name))
    asked.out.mkdir(parents=True, exist_ok=True)
    target = asked.out / f"{slug(machine())}.json"
    results = {
        "machine": machine(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "toy": asked.toy,
        "failed": failed,
    }
    results["benches"] = _merged(target, reports) if asked.only else {r["bench"]: r for r in reports}
    target.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    target.with_suffix(".md").write_text(markdown(results), encoding="utf-8")
    write_figure(results, target.with_suffix(".svg"))
    print(f"{target.stem}: {len(reports)} benchmarks, {len(failed)} failed", *failed)
    return 1 if failed else 0


def _possible(*, toy: bool) -> list[str]:
    """Return the benchmarks of this machine: ``gpu`` is measured only on a GPU, or checked at toy size."""
    import torch

    return [name for name in BENCHES if name != "gpu" or toy or torch.cuda.is_available()]


def run_bench(name: str, options: list[str]) -> dict[str, Any] | None:
    """Run one benchmark and return its report, or None if it failed."""
    command = [sys.executable, str(HERE / f"bench_{name}.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    print("\n".join(lines[:-1]), end="\n\n", flush=True)
    if done.returncode or not lines:
        print(f"{name} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    report: dict[str, Any] = json.loads(lines[-1])
    return report


def _merged(target: Path, reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Replace the reports of the same name in the results file."""
    try:
        before: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))["benches"]
    except (OSError, ValueError, KeyError):
        before = {}
    return before | {report["bench"]: report for report in reports}


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="smallest size, one round: checks that they run")
    parser.add_argument("--only", nargs="+", choices=BENCHES, help="run only these, keep other figures")
    parser.add_argument(
        "--repeats", type=int, help="number of rounds, of which the median is used; default 5"
    )
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="wall time or CPU time")
    parser.add_argument(
        "--out", type=Path, help="output folder; default benchmarks/results, or runs/bench_toy with --toy"
    )
    asked = parser.parse_args(argv)
    asked.out = asked.out or (HERE.parent / "runs" / "bench_toy" if asked.toy else HERE / "results")
    return asked


if __name__ == "__main__":
    raise SystemExit(main())
