"""The ablation of scanners at toy size: JSON line, variants that differ in what they name, paired rise."""

import json
from pathlib import Path

import bench_scanners
import numpy as np
import polars as pl
import pytest
from bench_scanners import VARIANTS, Scores, rise

from rsna_seq.config import load_config

TOY = """
workers: 1
device: cpu
synth: {studies: 5, test_studies: 3, matrix: 64, rare_share: 0.15}
index: {folds: 2, cross_folds: 2, holdout: 0}
cache: {size: 32}
embed: {backbone: test_efficientnet, pretrained: false, epochs: 1, batch_size: 64, folds: [0]}
evaluate: {bootstrap: 50}
"""


@pytest.mark.benchmark
def test_the_last_line_holds_every_variant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "toy.yaml").write_text(TOY, encoding="utf-8")
    arguments = ["--config", str(tmp_path / "toy.yaml"), "--out", str(tmp_path / "out")]
    assert bench_scanners.main([*arguments, "--real", str(tmp_path / "out" / "phantoms" / "unseen")]) == 0
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert result["prior"]["unseen"] > 0
    assert [row["variant"] for row in result["rows"]] == ["none", "mode", "augmentation", "both"]
    for row in result["rows"]:
        for name in ("standard", "unseen", "rise", "standard_difference", "unseen_difference"):
            assert row[name]["low"] <= row[name]["value"] <= row[name]["high"]
        assert row["rise"]["value"] == pytest.approx(row["unseen"]["value"] / row["standard"]["value"] - 1)
        assert f"| {row['variant']} |" in out
        assert all(0 <= p <= 1 for p in row["real"].values())
    assert len({row["unseen"]["value"] for row in result["rows"]}) == 4
    assert json.loads((tmp_path / "out" / "scanners.json").read_text(encoding="utf-8")) == result
    slabs = [
        pl.read_parquet(tmp_path / "out" / name / "2_cache" / "slabs.parquet") for name in ("none", "both")
    ]
    assert slabs[0]["hu_shift"].unique().to_list() == [0]
    assert slabs[1]["hu_shift"].n_unique() > 1


def test_variants_differ_in_what_they_name() -> None:
    cfg = load_config(None)
    none, mode, augmentation, both = (v.of(cfg) for v in VARIANTS)
    assert both == cfg
    assert mode.embed == none.embed != augmentation.embed == cfg.embed
    assert augmentation.cache == none.cache != mode.cache == cfg.cache


def test_the_rise_is_relative_and_its_interval_is_paired() -> None:
    patients = np.repeat([f"P{i}" for i in range(20)], 3)
    losses = np.random.default_rng(0).random(60) + 0.1
    found = rise(Scores(patients, losses, 1.0), Scores(patients, 1.2 * losses, 1.0), 200, 0)
    assert found == pytest.approx((0.2, 0.2, 0.2))
    other = rise(Scores(patients, losses, 1.0), Scores(patients, losses[::-1].copy(), 1.0), 200, 0)
    assert other.low < 0 < other.high
