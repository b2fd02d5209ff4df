"""The benchmark of labels of whole studies at toy size: JSON line, sets, paired differences."""

import json
from pathlib import Path

import bench_mixed
import numpy as np
import polars as pl
import pytest
from tiny_run import TINY


@pytest.mark.benchmark
def test_the_last_line_compares_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = [*TINY, "synth.studies=6", "synth.test_studies=3", "synth.matrix=64", "synth.rare_share=0.15"]
    arguments = ["--out", str(tmp_path), "--seeds", "1", "--whole", "6", "--ceiling"]
    assert bench_mixed.main([*arguments, *toy]) == 0
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert list(result["log_loss"]) == ["slices alone", "mixed", "all slices"]
    for name in ("mixed - slices alone", "all slices - slices alone"):
        row = result["differences"][name]
        assert row["low"] <= row["value"] <= row["high"]
        assert f"| {name} |" in out
    assert len({row["value"] for row in result["log_loss"].values()}) == 3
    weak = pl.read_parquet(tmp_path / "seed0" / "mixed" / "1_index" / "study_labels.parquet")
    assert len(weak) == 6
    assert not (tmp_path / "seed0" / "all_slices" / "1_index" / "study_labels.parquet").exists()
    assert json.loads((tmp_path / "mixed.json").read_text(encoding="utf-8")) == result


def test_differences_are_paired_and_over_the_patients_of_all_seeds() -> None:
    random = np.random.default_rng(0)
    seeds = [
        pl.DataFrame(
            {"patient": np.repeat([f"{k}/P{i}" for i in range(20)], 3), "slices alone": random.random(60)}
        )
        for k in range(2)
    ]
    found = bench_mixed.figures([s.with_columns(mixed=pl.col("slices alone") - 0.05) for s in seeds], 100)
    (row,) = found["differences"].values()
    assert tuple(row.values()) == pytest.approx((-0.05,) * 3), "the same slices in both runs"
    assert found["counts"] == {"slices": 120, "patients": 40}
    assert len(found["seeds"]) == 2
    assert "log loss is lower" in bench_mixed.text_of(found | {"studies": {"slices": 1}})
