"""Every speed benchmark runs at toy size, checks equal outputs and ends with its JSON line."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import bench_gpu
import pytest
import torch
from harness import MISSING, SETTLED, Options, Row, installed, race, table
from results import bar, goodness, markdown, slug, write_figure
from run_all import BENCHES, _possible

from rsna_seq.config import load_config

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("phantoms")


@pytest.mark.benchmark
@pytest.mark.parametrize("name", BENCHES)
def test_a_benchmark_ends_with_its_json_line(name: str, data: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / f"bench_{name}.py"), "--toy", "--data", str(data)]
    environment = {**os.environ, SETTLED: "1", "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout.splitlines()[-1])
    assert results["bench"] == name
    assert results["rows"]
    assert {"machine", "peak_mb", "cores", "repeats", "size", "versions"} <= set(results)
    assert all(row["met"] is None for row in results["rows"])  # toy sizes are not compared with targets
    assert all(row["ours"] is not None or row["note"] == MISSING for row in results["rows"])
    assert not list(data.glob("scratch_*"))


def test_the_marks_of_the_gpu_benchmark_give_rate_and_share_of_waiting() -> None:
    marks = bench_gpu.Marks(torch.device("cpu"))
    marks.before, marks.after = [0.0, 10.0, 20.0, 30.0], [1.0, 12.0, 23.0]
    marks.sizes, marks.waits = [8, 8, 2], [5, 6, 7, 8]
    assert marks.figures(1) == {"slices_per_s": 0.5, "waiting_share": 0.25, "host_waits_per_item": 1.0}


def test_the_reference_run_trains_on_four_folds_of_five_and_scores_the_fifth_each_epoch() -> None:
    config = load_config("base")
    n, fold = 752_803, 0.9 / 5
    hours = bench_gpu.reference_hours(config, 1.0, math.inf)
    assert hours == pytest.approx(5 * 4 * n * 4 * fold / 3600)
    hours = bench_gpu.reference_hours(config, math.inf, 1.0)
    assert hours == pytest.approx(5 * n * (5 * fold + 0.1) / 3600)


def test_the_gpu_is_measured_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "gpu" in _possible(toy=True)
    assert "gpu" not in _possible(toy=False)
    with pytest.raises(SystemExit, match="no CUDA GPU"):
        bench_gpu.measure(Options(2048, 1, False, Path()))
    results = {"machine": "m", "date": "d", "toy": False, "failed": [], "benches": {}}
    assert "nothing was measured on a GPU" in markdown(results)
    bench = {"rows": [], "size": 1, "unit": "slices", "cores": 1, "repeats": 1, "clock": "wall"}
    bench |= {"peak_mb": 1.0, "seconds": 1.0, "versions": {}, "device": "NVIDIA H100"}
    assert "on one NVIDIA H100" in markdown({**results, "benches": {"gpu": bench}})
    assert "nothing was measured" in markdown({**results, "benches": {"gpu": {**bench, "device": "cpu"}}})


def test_a_row_is_compared_by_its_ratio_or_its_own_figure() -> None:
    assert Row("a", "b", "s", 10.0, 2.0, 5.0).met is True
    assert Row("a", "b", "s", 10.0, 2.0, 5.1).met is False
    assert Row("a", "b", "s", 10.0, 2.0, 5.0, "most").met is True
    assert Row("a", "limit", "s", 3.0, None, 4.0, "most").met is True
    assert Row("a", "limit", "s", 5.0, None, 4.0, "most").met is False
    assert Row("a", "b", "s", 10.0, 2.0, rule=None).met is None
    assert Row("a", "b", "s", None, None, 5.0, note=MISSING).met is None


def test_all_contenders_run_in_turn_and_slow_ones_less_often(tmp_path: Path) -> None:
    seen: list[str] = []
    options = Options(1, 3, False, tmp_path)
    runs = {name: lambda name=name: seen.append(name) for name in "ab"}  # type: ignore[misc]
    seconds = race(runs, options, before=lambda: seen.append("-"), rounds={"b": 1})
    assert "".join(seen) == "-a-b-a-a"
    assert set(seconds) == {"a", "b"}


def test_a_missing_peer_is_reported_and_not_compared() -> None:
    assert not installed("no-such-package-anywhere")
    shown = table("t", [Row("a", "b", "s", None, None, 5.0, note=MISSING)])
    assert MISSING in shown
    assert "missed" not in shown


def test_missed_targets_are_in_table_and_figure(tmp_path: Path) -> None:
    four = "batches of four"
    rows = [
        {"name": "quick", "peer": "x", "unit": "/s", "ours": 9.0, "theirs": 1.0, "ratio": 9.0, "met": True},
        {"name": "slow", "peer": four, "unit": "/s", "ours": 1.0, "theirs": 1.0, "ratio": 1.0, "met": False},
        {"name": "gone", "peer": "x", "unit": "/s", "ours": None, "theirs": None, "ratio": None, "met": None},
    ]
    for row in rows:
        row |= {"target": 3.0, "rule": "least", "note": MISSING if row["ours"] is None else ""}
    bench = {"rows": rows, "size": 1, "unit": "files", "cores": 1, "repeats": 5, "clock": "wall"}
    bench |= {"peak_mb": 1.0, "seconds": 1.0, "versions": {"python": "3"}}
    results = {
        "machine": "A CPU, 2 cores",
        "date": "2026-01-01",
        "toy": False,
        "failed": [],
        "benches": {"stack": {**bench, "rows": rows[:1]}, "sequence": bench},
    }
    page = markdown(results)
    assert "2 targets met, 1 missed" in page
    assert "- sequence, slow / batches of four: an epoch is faster" in page
    assert page.index("| sequence |") < page.index("| stack |")
    assert MISSING in page
    assert [goodness(row) for row in rows] == [3.0, pytest.approx(1 / 3), None]
    figures = []
    for name in ("a.svg", "b.svg"):
        write_figure(results, tmp_path / name)
        figures.append((tmp_path / name).read_bytes())
    assert figures[0] == figures[1]


def test_a_bar_reaches_its_mark_at_the_target() -> None:
    assert bar(1.0).index("│") == bar(1.0).count("█") == 10
    assert bar(100.0).count("░") == 0
    assert bar(0.001).count("█") == 0
    assert bar(None) == ""
    assert slug("AMD EPYC, 2 cores") == "amd_epyc_2_cores"
