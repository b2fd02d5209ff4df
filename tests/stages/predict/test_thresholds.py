"""Thresholds of a prediction: those that ``evaluate`` chose, or the one of the config with the reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import write_study
from scored import scored_run, write_logits

from rsna_seq.clinic.results import read_results
from rsna_seq.config import EvaluateConfig, PredictConfig, load_config
from rsna_seq.context import Context
from rsna_seq.errors import IntegrityError, UsageError
from rsna_seq.labels import CLASSES
from rsna_seq.scoring.operating_points import FILE, choose, predictive_values
from rsna_seq.stages import evaluate
from rsna_seq.stages.predict.thresholds import RunPoints, read_points, thresholds_for
from rsna_seq.store.artifacts import Manifest, load_manifest
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.store.tables import LOGITS, SLABS, read_table

QUICK = EvaluateConfig(bootstrap=10, strips=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """An evaluated run of 90 studies, 30 of which are held out; none is epidural."""
    folder = tmp_path_factory.mktemp("run")
    run = RunFolder(scored_run(folder, studies=90, held_out=30, absent=("epidural",)))
    evaluate.run(QUICK, Context(), run)
    return run


@pytest.fixture
def copied(run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of it that a test may change."""
    shutil.copytree(run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def made(run: RunFolder) -> dict[str, Manifest]:
    return {stage: load_manifest(run[stage]) for stage in ("cache", "embed", "sequence", "stack")}


def test_the_thresholds_are_those_of_the_out_of_fold_studies(run: RunFolder) -> None:
    slabs = read_table(run["cache"] / "slabs.parquet", SLABS).filter(pl.col("fold") >= 0)
    logits = read_table(run["stack"] / "logits.parquet", LOGITS)
    truth = slabs.group_by("study").agg(pl.col(c).max() for c in CLASSES).sort("study")
    highest = logits.group_by("study").agg(pl.col(c).max() for c in CLASSES)
    joined = truth.join(highest, on="study", suffix="_logit").sort("study")
    for criterion in ("youden", "sensitivity95"):
        found = thresholds_for(PredictConfig(operating_point=criterion), [read_points(run, made(run))])
        assert found.operating_point == criterion
        assert "chosen out of fold" in found.note
        for name in (name for name in CLASSES if name != "epidural"):
            p = 1 / (1 + np.exp(-joined[f"{name}_logit"].to_numpy()))
            expected = choose(joined[name].to_numpy(), p, criterion)
            assert found.classes[name].threshold == pytest.approx(expected)
            assert found.classes[name].sensitivity is not None
            assert found.classes[name].ppv is None
    assert found.classes["any"].point is not None
    assert found.classes["any"].point.held_out is not None
    assert found.classes["any"].sensitivity >= 0.8


def test_predictive_values_are_given_for_the_prevalence_that_is_named(run: RunFolder) -> None:
    points = [read_points(run, made(run))]
    one = thresholds_for(PredictConfig(prevalence=0.2), points).classes
    assert [name for name in CLASSES if one[name].ppv is not None] == ["any"]
    both = thresholds_for(load_config(None, ["predict.prevalence={any: 0.2, subdural: 0.1}"]).predict, points)
    for name, prevalence in (("any", 0.2), ("subdural", 0.1)):
        at = both.classes[name]
        assert at.point is not None
        assert at.point.figures is not None
        assert (at.ppv, at.npv) == predictive_values(at.point.figures, prevalence)
        assert at.prevalence == prevalence
    assert both.classes["epidural"].ppv is None


@pytest.mark.parametrize("value", ["1.5", "true", "{all: 0.1}", "{any: 0}"])
def test_a_prevalence_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match=r"predict\.prevalence"):
        load_config(None, [f"predict.prevalence={value}"])


def test_where_no_threshold_holds_that_of_the_config_is_used_and_the_reason_is_told(run: RunFolder) -> None:
    known = read_points(run, made(run))
    rare = RunPoints(known.points.model_copy(update={"criteria": {"youden": {}}}) if known.points else None)
    for cfg, runs, reason in (
        (PredictConfig(operating_point="fixed"), [known], "predict.operating_point is fixed"),
        (PredictConfig(), [known, known], "several runs are averaged"),
        (PredictConfig(), [RunPoints(None, "no evaluation")], "no evaluation"),
        (PredictConfig(), [rare], "fewer than five studies"),
    ):
        found = thresholds_for(cfg.model_copy(update={"threshold": 0.3}), runs)
        assert found.operating_point == "fixed"
        assert reason in found.note
        assert "0.3 (predict.threshold)" in found.note
        assert {at.threshold for at in found.classes.values()} == {0.3}
        assert {at.sensitivity for at in found.classes.values()} == {None}


def test_a_class_that_is_too_rare_has_the_threshold_of_the_config(run: RunFolder) -> None:
    found = thresholds_for(PredictConfig(), [read_points(run, made(run))])
    assert found.classes["epidural"].threshold == 0.5
    assert found.classes["epidural"].point is None
    assert "epidural: too few studies, so 0.5" in found.note
    assert found.classes["any"].scope == "out_of_fold"  # fewer than 20 held-out studies have none


def test_thresholds_of_other_weights_are_not_used(copied: RunFolder) -> None:
    assert read_points(copied, made(copied)).points is not None
    write_logits(copied.path, "5_stack", seed=1)
    assert "other weights" in read_points(copied, made(copied)).absent
    shutil.rmtree(copied["evaluate"])
    assert "not finished" in read_points(copied, made(copied)).absent


def test_damaged_thresholds_are_refused(copied: RunFolder) -> None:
    file = copied["evaluate"] / FILE
    file.write_text(file.read_text(encoding="utf-8").replace("0.", "1."), encoding="utf-8")
    with pytest.raises(IntegrityError, match=FILE):
        read_points(copied, made(copied))
    file.unlink()
    with pytest.raises(IntegrityError, match=FILE):
        read_points(copied, made(copied))


def test_the_model_in_the_package_has_thresholds_for_every_class(
    tmp_path: Path, here: Callable[..., str]
) -> None:
    write_study(tmp_path / "in", "ID_a")
    words = (tmp_path / "in", "--out", tmp_path / "out", "predict.prevalence=0.1")
    said = here(*words)
    assert f"report: {tmp_path / 'out' / 'report.html'}" in said
    assert "most urgent: study ID_a: any haemorrhage 0." in said
    results = read_results(tmp_path / "out")
    assert results.thresholds is not None
    assert results.thresholds.operating_point == "youden"
    for name, found in results.studies[0].findings.items():
        at = results.thresholds.classes[name]
        assert at.point is not None
        assert at.point.out_of_fold is not None
        assert at.point.out_of_fold.sensitivity.of + at.point.out_of_fold.specificity.of == 455
        assert (found.threshold, found.sensitivity) == (at.threshold, at.sensitivity)
        assert found.above == (found.probability > at.threshold)
    assert results.studies[0].findings["any"].ppv is not None
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "at a prevalence of 10 % for any" in page
    again = here(*words[:3], "predict.operating_point=fixed")
    assert "config operating_point, prevalence changed" in again
    fixed = json.loads((tmp_path / "out" / "studies.json").read_text(encoding="utf-8"))
    assert fixed["studies"][0]["findings"]["any"]["threshold"] == 0.5


def test_an_evaluation_of_an_earlier_version_has_no_thresholds(copied: RunFolder) -> None:
    manifest = load_manifest(copied["evaluate"])
    files = {name: digest for name, digest in manifest.files.items() if name != FILE}
    earlier = manifest.model_copy(update={"files": files}).sealed()
    (copied["evaluate"] / "manifest.json").write_text(earlier.model_dump_json(), encoding="utf-8")
    assert "wrote no thresholds" in read_points(copied, made(copied)).absent
