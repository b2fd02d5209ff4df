"""The benchmark of warnings at toy size: JSON line, paired rise, and figures by hand."""

import json
from pathlib import Path

import bench_fitness
import numpy as np
import polars as pl
import pytest


@pytest.mark.benchmark
def test_the_last_line_holds_both_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--studies", "3", "--out", str(tmp_path), "workers=1", "device=cpu", "synth.matrix=64"]
    assert bench_fitness.main(words) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["sets"]) == {"standard", "unseen"}
    for row in result["sets"].values():
        assert row["studies"] == 3
        assert 0 < row["log_loss"]["low"] <= row["log_loss"]["value"] <= row["log_loss"]["high"]
        assert 0 <= row["flagged"]["value"] <= 1
    assert result["sets"]["standard"]["log_loss"] != result["sets"]["unseen"]["log_loss"]
    assert json.loads((tmp_path / "fitness.json").read_text(encoding="utf-8"))["sets"] == result["sets"]


def test_a_missing_run_ends_with_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--studies", "3", "--out", str(tmp_path), "--run", str(tmp_path / "none"), "synth.matrix=64"]
    assert bench_fitness.main([*words, "workers=1"]) == 6
    assert "none" in capsys.readouterr().err


def test_figures_by_hand() -> None:
    table = pl.DataFrame(
        {
            "study": ["a", "a", "b", "c"],
            "flagged": [True, True, False, False],
            "novelty": [2.0, 2.0, 0.1, 0.2],
            "any_spread": [0.3, 0.3, 0.1, 0.2],
            "loss": [0.5, 0.7, 0.1, 0.3],
        }
    )
    found = bench_fitness.figures(table)
    assert found["flagged"]["value"] == pytest.approx(1 / 3)
    assert found["log_loss"]["value"] == pytest.approx(0.4)
    assert (found["log_loss_flagged"], found["log_loss_not_flagged"]) == pytest.approx((0.6, 0.2))
    studies = bench_fitness.per_study(table)
    assert studies["loss"].to_list() == pytest.approx([0.6, 0.1, 0.3])
    assert bench_fitness.correlations(studies) == {"novelty": 1.0, "any_spread": 1.0}
    up = bench_fitness.rise(studies, studies.with_columns(pl.col("loss") * 1.5))
    assert tuple(up.values()) == pytest.approx((0.5, 0.5, 0.5))
    assert np.isnan(bench_fitness.spearman(np.ones(3), np.arange(3.0)))
