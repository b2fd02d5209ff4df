"""The benchmark of end-to-end training at toy size: equal compute, JSON line, resuming."""

import json
from pathlib import Path

import bench_joint
import numpy as np
import pytest

from rsna_seq.config import load_config
from rsna_seq.store.artifacts import load_manifest

TOY = [
    *("workers=1", "device=cpu", "synth.studies=8", "synth.matrix=64", "synth.rare_share=0.15"),
    *("index.cross_folds=2", "cache.size=32", "evaluate.bootstrap=50"),
    *("embed.backbone=test_efficientnet", "embed.pretrained=false", "embed.batch_size=64"),
    *("sequence.epochs=1", "sequence.hidden=8", "stack.rounds=5", "stack.min_leaf=5"),
    *("joint.epochs=1", "joint.batch_size=4", "joint.hidden=8", "joint.projection_dim=8"),
]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench")
    assert bench_joint.main(["--out", str(out), "--seeds", "1", *TOY]) == 0
    return out


@pytest.mark.benchmark
def test_both_runs_spend_the_same_compute_on_the_cnn(out: Path) -> None:
    result = json.loads((out / "joint.json").read_text(encoding="utf-8"))
    assert len(set(result["passes_per_slice"].values())) == 1
    trained = {
        run: load_manifest(out / "seed0" / run / "3_embed" / "fold0").config["epochs"]
        for run in ("two_stages", "joint")
    }
    joint = load_manifest(out / "seed0" / "joint" / "4_joint" / "fold0").config
    assert trained == {"two_stages": 3, "joint": 1}
    assert (joint["frozen_epochs"], joint["epochs"]) == (3, 1)
    assert set(result["cpu_seconds"][0]) >= {"two_stages embed", "joint embed", "joint joint"}


@pytest.mark.benchmark
def test_a_second_call_reuses_every_stage_and_ends_in_the_same_figures(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((out / "joint.json").read_text(encoding="utf-8"))
    assert bench_joint.main(["--out", str(out), "--seeds", "1", *TOY]) == 0
    printed = capsys.readouterr()
    last = json.loads(printed.out.splitlines()[-1])
    assert {**last, "seconds": 0} == {**before, "seconds": 0}
    assert printed.err.count("up to date") >= 10
    for a, b in bench_joint.PAIRS:
        row = last["differences"][f"{a} - {b}"]
        gap = last["log_loss"][a]["value"] - last["log_loss"][b]["value"]
        assert row["value"] == pytest.approx(gap, abs=3e-6)
        assert row["low"] <= row["value"] <= row["high"]
    assert all(way in printed.out for way in bench_joint.WAYS)


def test_the_interval_is_that_of_the_mean_over_seeds_and_paired_over_patients() -> None:
    random = np.random.default_rng(0)
    patients = np.repeat([f"P{i}" for i in range(30)], 4)
    hard = random.normal(size=30).repeat(4)  # what is hard for both models cancels
    seeds = [
        {way: 1 + hard + 0.01 * k - 0.1 * (way == "joint") for way in bench_joint.WAYS} for k in range(3)
    ]
    found = bench_joint.figures(seeds, patients, load_config(None, ["evaluate.bootstrap=100"]))
    gap = found["differences"]["joint - two stages"]
    assert gap == pytest.approx({"value": -0.1, "low": -0.1, "high": -0.1}, abs=1e-6)
    assert found["log_loss"]["joint"]["high"] - found["log_loss"]["joint"]["low"] > 0.1
    assert found["log_loss_by_seed"]["joint"] == sorted(found["log_loss_by_seed"]["joint"])


def test_frozen_epochs_that_cannot_be_matched_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_joint.main(["--out", str(tmp_path), "joint.frozen_epochs=2"]) == 2
    assert "must be a multiple of 3" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
