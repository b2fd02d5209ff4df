"""Runs with labels of whole studies and without some classes: scores, and training of every stage."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from importing import imported
from miniatures import write_csv, write_dicom
from scored import scored_run
from tiny_run import WITH_JOINT
from weak_run import label_whole, weak_cache, without_classes

from rsna_seq.config import Config, EmbedConfig, EvaluateConfig, SequenceConfig, StackConfig, load_config
from rsna_seq.context import Context
from rsna_seq.labels import CLASSES
from rsna_seq.pipeline import predict, run_all
from rsna_seq.scoring.baselines import slab_prior
from rsna_seq.scoring.metric import slice_losses
from rsna_seq.stages import embed, evaluate, sequence, stack
from rsna_seq.store.artifacts import open_artifact
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.store.tables import STUDY_LABELS, read_table

QUICK = EvaluateConfig(bootstrap=20, strips=2)


def scored(run: Path) -> dict[str, Any]:
    evaluate.run(QUICK, Context(), RunFolder(run))
    metrics: dict[str, Any] = json.loads((run / "6_evaluate" / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def report(run: Path) -> str:
    return (run / "6_evaluate" / "report.html").read_text(encoding="utf-8")


def thresholds(run: Path) -> str:
    return (run / "6_evaluate" / "operating_points.json").read_text(encoding="utf-8")


def test_a_mixed_run_scores_slices_with_labels_of_their_own_and_all_studies(tmp_path: Path) -> None:
    run = scored_run(tmp_path)
    before, points = scored(run), thresholds(run)
    label_whole(run, 12)  # the held-out six among them
    after = scored(run)
    assert (after["unit"], after["scope"], after["held_out"]) == ("slices", "out_of_fold", None)
    assert after["counts"]["studies"] == 12
    studies = after["study_level"]
    assert {name: s["labelled"]["any"] for name, s in studies.items()} == {"out_of_fold": 18, "held_out": 6}
    for name, figures in studies.items():  # a study has the same label, whoever gave it
        for key in ("auc_any", "low", "high", "positive", "classes"):
            assert figures["study"][key] == before[name]["study"][key], (name, key)
    assert thresholds(run) == points
    assert "Labels of whole studies" in report(run)


def test_without_labels_of_slices_the_rows_are_studies(tmp_path: Path) -> None:
    run = scored_run(tmp_path, held_out=0)
    before = scored(run)
    label_whole(run, 24)
    after = scored(run)
    assert after["unit"] == "studies"
    assert after["counts"] == before["counts"] | {"slices": 24}
    assert after["study"]["auc_any"] == before["study"]["auc_any"]
    assert after["models"]["stack"]["log_loss"] < after["models"]["prior"]["log_loss"]
    share = after["study"]["positive"] / 24
    assert after["classes"]["any"]["prevalence"] == pytest.approx(share)
    assert "where this page says slices, read studies" in report(run)


def test_a_class_without_labels_is_left_out_and_the_others_are_scored(tmp_path: Path) -> None:
    run = scored_run(tmp_path, held_out=0)
    before = scored(run)
    without_classes(run, "epidural")
    after = scored(run)
    assert set(after["classes"]) == set(CLASSES) - {"epidural"}
    for c, figures in after["classes"].items():
        assert figures == before["classes"][c]
    assert after["counts"] == before["counts"] | {"slices with six labels": 0}
    weights = {c: 2 if c == "any" else 1 for c in after["classes"]}
    mean = sum(w * after["classes"][c]["log_loss"]["cnn"] for c, w in weights.items()) / 6
    assert after["models"]["cnn"]["log_loss"] == pytest.approx(mean)
    assert "have labels of all six classes" in report(run)


def test_unknown_classes_of_a_slice_have_no_loss() -> None:
    labels = np.array([[np.nan] * 5 + [1], [0] * 6, [np.nan] * 6], dtype=float)
    p = np.full((3, 6), 0.25)
    assert slice_losses(labels, p)[:2] == pytest.approx([-np.log(0.25), -np.log(0.75)])
    assert np.isnan(slice_losses(labels, p)[2])


def test_every_stage_is_trained_on_labels_of_studies_alone(tmp_path: Path) -> None:
    weak_cache(tmp_path / "2_cache", weak=12)
    ctx, run = Context(device="cpu"), RunFolder(tmp_path)
    made = embed.run(
        EmbedConfig(backbone="resnet10t", pretrained=False, epochs=1, batch_size=16, study_slices=4), ctx, run
    )
    assert made is not None
    assert {"study_pool", "study_loss", "study_slices"} <= set(made.config)
    sequence.run(
        SequenceConfig(epochs=1, batch_size=4, projection_dim=16, hidden=8, study_pool="attention"), ctx, run
    )
    assert stack.run(StackConfig(rounds=5, min_leaf=2), ctx, run).counts["boosters"] == 0
    for stage in ("embed", "sequence", "stack"):
        logits = pl.read_parquet(run[stage] / "logits.parquet").select(CLASSES).to_numpy()
        assert np.isfinite(logits).all()


def mixed_sets(folder: Path) -> Config:
    """Six studies with labels of slices and without epidural, six with labels of the whole."""
    sets = []
    for level, first in (("slice", 0), ("study", 6)):
        data, rows = folder / level, [["id", *CLASSES[1:]]] if level == "slice" else [["id", *CLASSES]]
        for n in range(first, first + 6):
            kind = ("", "subdural", "subarachnoid")[n % 3]
            write_dicom(data / str(n), f"1.2.{n}", f"P{n}", bleeds=bool(kind))
            for k in range(1, 6) if level == "slice" else [3]:
                seen = bool(kind) and k in {3, 4}
                name = f"1.2.{n}.1.{k}" if level == "slice" else f"1.2.{n}"
                rows.append([name, *(int(seen and c in {kind, "any"}) for c in rows[0][1:])])
        imported("folder", data, f"imports.labels={write_csv(folder / f'{level}.csv', rows)}")
        sets.append(folder / f"imported_{level}")
    return load_config(None, [*WITH_JOINT, f"data.sets=[{sets[0]}, {sets[1]}]"])


def test_a_mixed_run_from_files_to_answers(tmp_path: Path) -> None:
    cfg = mixed_sets(tmp_path)
    run = RunFolder(tmp_path / "run")
    run_all(cfg, tmp_path / "run")
    whole = read_table(open_artifact(run["cache"]).file("study_labels.parquet"), STUDY_LABELS)
    assert sorted(whole["study"]) == [f"1.2.{n}" for n in (10, 11, 6, 7, 8, 9)]
    for stage in ("embed", "joint", "sequence", "stack"):
        logits = pl.read_parquet(run[stage] / "logits.parquet")
        assert logits["study"].n_unique() == 12
        assert np.isfinite(logits.select(CLASSES).to_numpy()).all()
    metrics = json.loads((run["evaluate"] / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["counts"]["studies"] == 6
    assert set(metrics["classes"]) == set(CLASSES[1:])
    assert metrics["study_level"]["out_of_fold"]["labelled"] == {
        c: 12 - 6 * (c == "epidural") for c in CLASSES
    }
    cache = PixelCache(run["cache"])
    prior = slab_prior(cache.slabs, cache.study_labels)
    assert prior[-1] == pytest.approx(8 / 30), "slices of studies that were labelled as a whole do not count"
    answers = predict([tmp_path / "study" / "7"], [tmp_path / "run"], tmp_path / "out", cfg)
    assert answers.counts["studies"] == 1
