"""The quality benchmark at toy size: JSON line, targets and refused configs."""

import json
from pathlib import Path

import bench_quality
import numpy as np
import pytest
from peers.quality import PEERS
from quality_report import CLEAR, CNN, FLAT, GRU, STACK, Losses, plain_targets, targets

from rsna_seq.scoring.scores import Scope

TOY = """
workers: 1
device: cpu
synth: {studies: 8, test_studies: 0, matrix: 64, rare_share: 0.15, damage: false}
index: {folds: 2, cross_folds: 2, holdout: 0.25}
cache: {size: 32}
embed: {backbone: test_efficientnet, pretrained: false, epochs: 1, batch_size: 64}
sequence: {epochs: 1, projection_dim: 8, hidden: 8}
stack: {rounds: 5, min_leaf: 5}
evaluate: {bootstrap: 50}
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "toy.yaml").write_text(TOY, encoding="utf-8")
    return folder


def _run(toy: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[dict, str]:
    assert bench_quality.main(["--config", str(toy / "toy.yaml"), "--out", str(toy / "out"), *more]) == 0
    out = capsys.readouterr().out
    return json.loads(out.splitlines()[-1]), out


@pytest.mark.benchmark
def test_the_last_line_holds_every_figure(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, out = _run(toy, capsys, "seed=3")
    assert len(result["phantoms"]["digest"]) == 64
    assert result["phantoms"]["digest"] in out.splitlines()[0]
    assert set(result["scopes"]) == {"out_of_fold", "held_out"}
    for scope in result["scopes"].values():
        assert set(scope["ways"]) == {"prior", FLAT, CNN, GRU, STACK, *(p.name for p in PEERS)}
        for figures in scope["ways"].values():
            assert figures["log_loss"]["low"] <= figures["log_loss"]["value"] <= figures["log_loss"]["high"]
    assert len(result["targets"]) == 13
    assert all(isinstance(t["met"], bool) and t["target"].split(",")[0] in out for t in result["targets"])
    assert result["peak_memory_mb"]["process"] > 0
    assert result["seconds_by_step"]["embed 2D"] > 0
    assert {"torch", "rsna_seq"} <= set(result["versions"])
    assert json.loads((toy / "out" / "quality.json").read_text(encoding="utf-8")) == result
    assert (toy / "out" / "quality.svg").read_text(encoding="utf-8").startswith("<svg")
    _check_repeat(toy, capsys, result)


def _check_repeat(toy: Path, capsys: pytest.CaptureFixture[str], first: dict) -> None:
    """A second seed does not change the figures of the first, and the CNNs are not trained again."""
    trained = toy / "out" / "seed0" / "3_embed" / "manifest.json"
    before = trained.stat().st_mtime_ns
    again, out = _run(toy, capsys, "--seeds", "2", "seed=3")
    assert trained.stat().st_mtime_ns == before
    assert again["scopes"] == first["scopes"]
    assert "over 2 seeds" in out
    assert again["spread"]["out_of_fold"][GRU]["sd"] > 0
    gap = again["spread"]["out_of_fold"]["two LSTMs"]["less_gru"]
    assert gap["low"] <= gap["value"] <= gap["high"]
    assert all(len(t["met_by_seed"]) == 2 for t in again["targets"])


@pytest.mark.parametrize("override", ["embed.pretrained=phantom", "embed.neighbours=0"])
def test_cnns_that_would_differ_in_more_than_neighbours_are_refused(
    tmp_path: Path, override: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_quality.main(["--out", str(tmp_path), override]) == 2
    assert override.split("=", maxsplit=1)[0] in capsys.readouterr().err


def _losses(shares: dict[str, float]) -> Losses:
    """Models whose log loss on every slice is a given share of that of the first."""
    labels = np.zeros((60, 6), dtype=np.int8)
    names = np.repeat([f"P{i}" for i in range(12)], 5)
    models = {way: np.full(labels.shape, 1 - np.exp(-0.1 * share)) for way, share in shares.items()}
    return Losses(Scope(labels=labels, patients=names, studies=names, models=models), 50, 0)


def test_targets_are_met_at_their_bound_and_missed_above_it() -> None:
    good = {FLAT: 1.0, CNN: 0.9, **dict.fromkeys(CLEAR, 0.8), GRU: 0.7, STACK: 0.69}
    met = targets({"out_of_fold": _losses(good), "held_out": _losses(good)})
    assert all(t.met for t in met)
    bad = good | {CNN: 0.93, CLEAR[0]: 0.6, GRU: 0.8, STACK: 0.81}
    assert not any(t.met for t in targets({"out_of_fold": _losses(bad)}) if CLEAR[1] not in t.name)
    unmeasured = targets({"out_of_fold": _losses(good)})[-1]
    assert unmeasured.met is None
    assert unmeasured.scope == "held out"


def test_the_figure_of_a_target_is_the_mean_over_the_seeds_and_its_verdict_that_of_each() -> None:
    shares = {FLAT: 1.0, CNN: 0.9, **dict.fromkeys(CLEAR, 0.8), GRU: 0.7, STACK: 0.69}
    seeds = [{"out_of_fold": _losses(shares | {CNN: share})} for share in (0.9, 0.96)]
    first = next(iter(plain_targets(seeds)))
    assert first["met_by_seed"] == [True, False]
    assert first["figure"] == "ratio 0.930"
    assert not first["met"]
