"""The comparison of two commits at toy size: both run, the ratio has an interval, nothing is left."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.benchmark
def test_a_commit_is_compared_with_itself(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    script = ROOT / "benchmarks" / "compare_commits.py"
    sizes = ["--toy", "--stages", "index", "--rounds", "1", "--files", "40", "--data", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(script), "HEAD", *sizes], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    figures = result["index"]
    assert figures["ratio"] == pytest.approx(figures["here"] / figures["there"])
    assert figures["low"] <= figures["ratio"] <= figures["high"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["phantoms_128_2"]
    trees = subprocess.run(
        ["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "/there" not in trees
