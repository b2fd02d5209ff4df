"""Scores of models and baselines, intervals and report, on synthetic logits."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from browser import Browser
from builders import replace_table
from scored import scored_run, write_logits

from rsna_seq.config import EvaluateConfig
from rsna_seq.console import console
from rsna_seq.context import Context
from rsna_seq.errors import IntegrityError, NothingUsableError
from rsna_seq.labels import CLASSES, N_CLASSES
from rsna_seq.report.run import pick_studies
from rsna_seq.scoring.baselines import read_models
from rsna_seq.scoring.metric import log_loss
from rsna_seq.stages import evaluate
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.store.tables import LOGITS, SLABS, read_table

QUICK = EvaluateConfig(bootstrap=50, strips=2)
MODELS = ["prior", "cnn", "smoothed", "sequence", "stack", "calibrated"]


def scored(run: Path, cfg: EvaluateConfig = QUICK) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate.run(cfg, Context(), RunFolder(run))
    metrics: dict[str, Any] = json.loads((run / "6_evaluate" / "metrics.json").read_text(encoding="utf-8"))
    return metrics


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scored_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def metrics(run: Path) -> dict[str, Any]:
    return scored(run)


@pytest.fixture(scope="module")
def page(run: Path, metrics: dict[str, Any]) -> str:
    return (run / "6_evaluate" / "report.html").read_text(encoding="utf-8")


def test_held_out_patients_are_the_headline_and_out_of_fold_is_reported_too(metrics: dict[str, Any]) -> None:
    assert metrics["scope"] == "held_out"
    for piece in ("models", "differences", "classes", "study", "counts"):
        assert metrics[piece] == metrics["held_out"][piece]
        assert metrics["out_of_fold"][piece].keys() == metrics[piece].keys()
    assert metrics["out_of_fold"]["counts"]["studies"] == 18
    assert metrics["counts"]["studies"] == 6
    assert metrics["counts"]["patients"] == 3


def test_every_model_has_an_interval_around_its_log_loss(metrics: dict[str, Any]) -> None:
    for scope in ("held_out", "out_of_fold"):
        assert sorted(metrics[scope]["models"]) == sorted(MODELS)
        for model in metrics[scope]["models"].values():
            assert model["low"] <= model["log_loss"] <= model["high"]
    assert metrics["models"]["stack"]["log_loss"] < metrics["models"]["cnn"]["log_loss"]


def test_the_score_of_a_model_is_the_official_metric_of_the_mean_over_networks(
    run: Path, metrics: dict[str, Any]
) -> None:
    slices = pl.read_parquet(run / "1_index" / "slices.parquet").filter(pl.col("fold") == -1)
    slabs = read_table(run / "2_cache" / "slabs.parquet", SLABS)
    logits = read_table(run / "5_stack" / "logits.parquet", LOGITS)
    where = {name: (r["study"], r["slab"]) for r in slabs.iter_rows(named=True) for name in r["slices"]}
    answers = []
    for name in slices["slice"]:
        study, slab = where[name]
        rows = logits.filter((pl.col("study") == study) & (pl.col("slab") == slab)).select(CLASSES).to_numpy()
        assert len(rows) == 9  # three networks times three models
        answers.append((1 / (1 + np.exp(-rows))).mean(axis=0))
    by_hand = log_loss(slices.select(CLASSES).to_numpy(), np.array(answers))
    assert metrics["models"]["stack"]["log_loss"] == pytest.approx(by_hand, rel=1e-12)


def test_the_prior_of_a_fold_is_the_prevalence_of_the_others(run: Path) -> None:
    slices, models = read_models(RunFolder(run).open("index", "cache", "embed", "sequence", "stack"), 5.0)
    fold = slices["fold"].to_numpy()
    for k in (-1, 0, 1, 2):
        others = slices.filter((pl.col("fold") != k) & (pl.col("fold") >= 0)).select(CLASSES).to_numpy()
        assert models["prior"][fold == k] == pytest.approx(
            np.tile(others.mean(axis=0), ((fold == k).sum(), 1)), abs=1e-4
        )


def test_differences_are_paired_and_add_up(metrics: dict[str, Any]) -> None:
    steps = metrics["differences"]
    assert len(steps) == 15
    for name, step in steps.items():
        a, b = name.split("->")
        gap = metrics["models"][b]["log_loss"] - metrics["models"][a]["log_loss"]
        assert step["difference"] == pytest.approx(gap)
        assert step["low"] <= step["high"]


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the report, which takes seconds, in tests that only read ``metrics.json``."""
    monkeypatch.setattr(evaluate, "write_run_report", lambda *_: None)


@pytest.mark.usefixtures("no_report")
def test_a_model_equal_to_the_previous_one_differs_by_zero(tmp_path: Path) -> None:
    run = scored_run(tmp_path, studies=9, held_out=0, stages=("3_embed", "4_sequence"))
    table = read_table(run / "4_sequence" / "logits.parquet", LOGITS)
    write_logits(run, "5_stack")
    for name in ("logits", "uncalibrated"):
        replace_table(table, run / "5_stack" / f"{name}.parquet", LOGITS)
    found = scored(run)
    assert found["differences"]["sequence->stack"] == {"difference": 0, "low": 0, "high": 0}
    assert found["scope"] == "out_of_fold"
    assert found["held_out"] is None


def test_without_a_temperature_no_calibrated_model_is_listed(tmp_path: Path, page: str) -> None:
    run = scored_run(tmp_path, studies=9, held_out=0, calibrated=False)
    assert sorted(scored(run)["models"]) == sorted(set(MODELS) - {"calibrated"})
    other = (run / "6_evaluate" / "report.html").read_text(encoding="utf-8")
    assert "so none is used" in other
    assert "calibrated</" not in other
    assert "divided by one temperature" in page
    assert "so none is used" not in page


@pytest.mark.usefixtures("no_report")
def test_a_class_that_never_occurs_has_no_areas_and_is_no_error(tmp_path: Path) -> None:
    found = scored(scored_run(tmp_path, absent=("epidural", "subdural")))
    for scope in ("held_out", "out_of_fold"):
        for name, figures in found[scope]["classes"].items():
            absent = name in {"epidural", "subdural"}
            assert (figures["auc"] is None) == (figures["average_precision"] is None) == absent
            assert figures["log_loss"].keys() == found["models"].keys()
            assert 0 <= figures["brier_low"] <= figures["brier"] <= figures["brier_high"] <= 1
            assert 0 <= figures["calibration_error"] <= 1


def test_calibration_over_studies_is_that_of_the_highest_slice(run: Path, metrics: dict[str, Any]) -> None:
    slices, models = read_models(RunFolder(run).open("index", "cache", "embed", "sequence", "stack"), 5.0)
    p = pl.DataFrame(list(models.values())[-1], schema=[f"p_{c}" for c in CLASSES])
    studies = pl.concat([slices, p], how="horizontal").filter(pl.col("fold") >= 0).group_by("study").max()
    for name in CLASSES:
        figures = metrics["out_of_fold"]["study"]["classes"][name]
        error = (studies[f"p_{name}"] - studies[name]) ** 2
        assert figures["brier"] == pytest.approx(float(error.mean()))  # type: ignore[arg-type]
        assert figures["brier_low"] <= figures["brier"] <= figures["brier_high"]
        assert figures["positive"] == studies[name].sum()
        assert sum(row["studies"] for row in figures["reliability"]) <= len(studies) == 18
        assert all(row["low"] <= row["observed"] <= row["high"] for row in figures["reliability"])


def test_the_spread_over_networks_is_known_for_held_out_studies_only(
    run: Path, metrics: dict[str, Any], page: str
) -> None:
    logits = read_table(run / "5_stack" / "logits.parquet", LOGITS)
    held = pl.read_parquet(run / "2_cache" / "slabs.parquet").filter(pl.col("fold") == -1)["study"].unique()
    highest = logits.filter(pl.col("study").is_in(held.implode())).group_by("study", "net", "cross").max()
    p = highest.with_columns(p=1 / (1 + (-pl.col("any")).exp()))
    spread = p.group_by("study").agg(pl.col("p").std(ddof=0))["p"]
    found = metrics["held_out"]["study"]["spread"]
    assert found["networks"] == 9
    assert found["median"] == pytest.approx(spread.median())
    assert metrics["out_of_fold"]["study"]["spread"] is None
    assert "varies between the 9 networks" in page
    assert "Each study is predicted by one network" in page


def test_a_set_without_any_haemorrhage_is_scored(tmp_path: Path) -> None:
    found = scored(scored_run(tmp_path, studies=9, held_out=0, absent=CLASSES))
    assert found["study"]["auc_any"] is None
    assert found["study"]["positive"] == 0
    assert "no class has both positive and negative slices" in (
        tmp_path / "6_evaluate" / "report.html"
    ).read_text(encoding="utf-8")


def test_an_unfinished_run_is_scored_up_to_its_last_stage(tmp_path: Path) -> None:
    found = scored(scored_run(tmp_path, studies=9, held_out=0, stages=("3_embed",)))
    assert sorted(found["models"]) == ["cnn", "prior", "smoothed"]
    with pytest.raises(IntegrityError, match="embed is not finished"):
        evaluate.run(QUICK, Context(), RunFolder(tmp_path / "none"))


def test_a_missing_prediction_is_an_error_and_not_nan(tmp_path: Path) -> None:
    run = scored_run(tmp_path, studies=9, held_out=0, stages=("3_embed",))
    path = run / "3_embed" / "logits.parquet"
    replace_table(read_table(path, LOGITS).head(-1), path, LOGITS)
    with pytest.raises(IntegrityError, match="no prediction for slices of 1 studies"):
        scored(run)


def test_a_set_without_labels_cannot_be_scored(tmp_path: Path) -> None:
    run = scored_run(tmp_path, studies=9, held_out=0, stages=("3_embed",))
    path = run / "2_cache" / "slabs.parquet"
    replace_table(read_table(path, SLABS).with_columns(fold=pl.lit(None, pl.Int16)), path, SLABS)
    with pytest.raises(NothingUsableError, match="no slice has a label"):
        scored(run)


def test_the_tables_are_readable_in_100_columns(
    metrics: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "width", 100)
    with console.capture() as printed:
        evaluate.show(metrics)
    assert max(map(len, printed.get().splitlines())) <= 100
    assert "…" not in printed.get()
    assert all(word in printed.get() for word in (*MODELS, *CLASSES, "held out"))


def test_the_report_is_self_contained(page: str) -> None:
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:|#)[a-z/]""", page)
    assert "<script" not in page
    assert not re.search(r"https?://(?!www\.w3\.org/)", page)  # names of XML schemas are not fetched


def test_no_table_of_the_report_overflows_at_1200_px(page: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    with Browser(tmp_path) as browser:
        browser.open(file)
        overflow = browser.run(
            "[...document.querySelectorAll('.wide')].map(e => e.scrollWidth - e.clientWidth)"
        )
    assert len(overflow) == page.count('<div class="wide">')
    assert max(overflow) <= 0


def test_the_report_names_its_scopes_and_that_it_is_not_for_clinical_use(page: str) -> None:
    for words in (
        "Held out",
        "Out of fold",
        "Not a medical device, not for clinical use",
        "Models and baselines",
        "the pixel data is truncated",
        "bootstrap: 50",
    ):
        assert words in page, words
    assert page.count('<figure class="strip">') == QUICK.strips


def test_the_report_names_no_patient_and_no_study(page: str) -> None:
    assert "SECRET" not in page
    assert "S000" not in page
    assert "<b>cut</b>" not in page


def test_the_same_run_makes_the_same_report(run: Path, page: str) -> None:
    evaluate.run(QUICK, Context(rebuild=True), RunFolder(run))
    assert (run / "6_evaluate" / "report.html").read_text(encoding="utf-8") == page


def test_example_studies_are_selected_by_four_criteria() -> None:
    rows = {"A": (0, 0), "B": (1, 0), "C": (1, 1), "D": (0, 0)}
    table = pl.DataFrame(
        [
            {"study": s, **dict.fromkeys(CLASSES, 0), "subdural": a, "epidural": b, "any": a}
            for s, (a, b) in rows.items()
        ]
    )
    answers = np.full((4, N_CLASSES), 0.2)
    answers[:, -1] = [0.1, 0.9, 0.8, 0.7]  # D is a false positive
    picked = dict(pick_studies(table, answers, 4))
    assert list(picked) == ["C", "D", "A", "B"]
    assert [why.split()[0] for why in picked.values()] == ["several", "large", "no", "haemorrhage,"]
    assert len(pick_studies(table, answers, 9)) == 4
    assert pick_studies(table, answers, 0) == []


@pytest.mark.parametrize("stage", ["index", "cache", "sequence"])
def test_a_run_without_a_stage_below_a_finished_one_is_refused(tmp_path: Path, stage: str) -> None:
    run = RunFolder(scored_run(tmp_path, studies=9, held_out=0))
    (run[stage] / "manifest.json").unlink()
    with pytest.raises(IntegrityError, match=f"{stage}: no complete artefact"):
        evaluate.run(QUICK, Context(), run)
