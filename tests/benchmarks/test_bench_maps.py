"""The measurement of maps at toy size: masks in place, hits, overlap, the JSON line, a resume."""

import json
from pathlib import Path

import bench_maps
import bench_outline
import map_methods
import numpy as np
import pytest
from map_phantoms import cases, findings, tasks

from rsna_seq.labels import CLASSES
from rsna_seq.models import packaged_model
from rsna_seq.phantom import KINDS
from rsna_seq.stages.predict.trained import TrainedRun

FEW = ("grad_cam_4", "integrated_dense", "brightest")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the tests share phantoms."""
    return tmp_path_factory.mktemp("maps")


@pytest.mark.benchmark
def test_the_masks_lie_on_the_blood_that_the_networks_see(out: Path) -> None:
    run = TrainedRun(packaged_model(), "cpu")
    (case,) = cases(out / "cases", run, 1, bench_maps.SEEDS["choose"], "varied", 96)
    assert case.labels.tolist() == [kind == "epidural" for kind in KINDS]
    mask = case.mask(0)
    assert mask.shape == case.hu.shape
    blood = float(np.median(case.hu[mask & (case.blood[:, 0] > 250)]))
    brain = case.hu[(case.blood[:, 0] == 0) & (case.hu > 10) & (case.hu < 60)]
    assert np.median(brain) + 6 < blood < 95
    assert 1.2 < case.pixel_mm < 2.2
    (again,) = cases(out / "cases", run, 1, bench_maps.SEEDS["choose"], "varied", 96)
    np.testing.assert_array_equal(again.blood, case.blood)
    found = findings([case], 0.0)
    assert [CLASSES[f.kind] for f in found] == ["epidural"]
    assert found[0].slab == case.probabilities[:, 0].argmax()
    assert findings([case], 1.0) == []


def test_sets_have_all_types_and_the_same_patients_on_all_scanners() -> None:
    standard, unseen = (tasks(20, 5, scanners, 96) for scanners in ("standard", "unseen"))
    assert [t.plan for t in standard] == [t.plan for t in unseen]
    counts = [sum(kind in t.plan.kinds for t in standard) for kind in KINDS]
    assert min(counts) >= 4
    assert {len(t.plan.kinds) for t in standard} == {1, 2}


def test_the_distance_is_in_mm_and_an_empty_mask_is_a_miss() -> None:
    found, mask = np.zeros((20, 20), np.float32), np.zeros((20, 20), bool)
    found[5, 5], mask[5, 8:10] = 1, True
    assert bench_maps.distance(found, mask, 1.5) == pytest.approx(4.5)
    assert bench_maps.distance(found, found > 0, 1.5) == 0
    assert bench_maps.distance(found, mask & False, 1.5) == np.inf
    assert bench_maps.dice(mask, mask) == 1
    assert bench_maps.dice(mask, mask & False) == 0


@pytest.mark.benchmark
def test_the_last_line_holds_every_method_and_a_second_call_reads_the_first(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_maps, "METHODS", {name: map_methods.METHODS[name] for name in FEW})
    monkeypatch.setattr(bench_maps, "FOUND", 0.0)
    words = ["--out", str(out), "--choose", "1", "--report", "1", "--matrix", "96"]
    assert bench_maps.main(words) == 0
    first = capsys.readouterr().out
    result = json.loads(first.splitlines()[-1])
    assert set(result["choose"]) == set(FEW)
    assert result["chosen"] in set(FEW) - {"brightest"}
    for scanners in ("standard", "unseen"):
        for row in result["report"][scanners].values():
            assert row["all"]["pointing"]["low"] <= row["all"]["pointing"]["value"]
            assert 0 <= row["all"]["dice"]["value"] <= 1
            assert row["seconds"] > 0
        assert f"| {scanners} scanners |" in first
        assert result["difference"][scanners]["low"] <= result["difference"][scanners]["high"]
    monkeypatch.setattr(bench_maps, "measure", lambda *_: pytest.fail("measured again"))
    assert bench_maps.main(words) == 0


@pytest.mark.benchmark
def test_a_decoder_is_trained_judged_and_read_again(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_outline, "FOUND", 0.0)
    monkeypatch.setattr(bench_outline, "TRAIN_SEED", bench_maps.SEEDS["choose"])
    words = ["--out", str(out), "--train", "1", "--epochs", "1", "--choose", "1", "--report", "1"]
    assert bench_outline.main([*words, "--matrix", "96"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["sets"]) == {"varied", "standard", "unseen"}
    for found in result["sets"].values():
        assert 0 <= found["study_dice"]["value"] <= 1
    monkeypatch.setattr(bench_outline, "train", lambda *_, **__: pytest.fail("trained again"))
    assert bench_outline.main([*words, "--matrix", "96"]) == 0
