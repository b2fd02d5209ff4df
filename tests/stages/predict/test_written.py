"""What ``predict`` writes: tables, comparison with training, studies.json, DICOM results."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import cli
from dicoms import head, write_slice
from tiny_run import WITH_JOINT

from rsna_seq.clinic.identifiers import valid_uid
from rsna_seq.clinic.results import RESEARCH_ONLY, read_results
from rsna_seq.config import IndexConfig
from rsna_seq.labels import CLASSES
from rsna_seq.scoring.novelty import NUMBERS
from rsna_seq.stages import cache, index
from rsna_seq.stages.predict.trained import TrainedRun
from rsna_seq.store.artifacts import read_manifest


def test_studies_csv_says_where_the_maximum_lies(walked: Path) -> None:
    out = walked / "run" / "7_predict"
    slices, studies = pl.read_csv(out / "slices.csv"), pl.read_csv(out / "studies.csv")
    for study in studies.iter_rows(named=True):
        rows = slices.filter(pl.col("study") == study["study"])
        assert study["any"] == rows["any"].max()
        assert study["any_z_mm"] in rows.filter(pl.col("any") == pl.col("any").max())["z_mm"]


def test_slices_csv_names_the_folder_that_its_files_are_relative_to(walked: Path) -> None:
    slices = pl.read_csv(walked / "run" / "7_predict" / "slices.csv")
    assert slices["root"].unique().to_list() == [read_results(walked / "run" / "7_predict").root]
    assert all((Path(row["root"]) / row["file"]).is_file() for row in slices.iter_rows(named=True))


def test_studies_csv_says_how_far_the_networks_differ(walked: Path) -> None:
    out, run = walked / "run" / "7_predict", TrainedRun(walked / "run", "cpu")
    studies = pl.read_csv(out / "studies.csv")
    scan = index.scan(walked / "data" / "stage_2_test", IndexConfig())
    for rows in cache.split_by_pass(scan.slices):
        volume = cache.apply(rows, scan.root, run.cache).volume
        if volume is not None:
            highest = run.answers(volume).probabilities.max(axis=1)
            assert len(highest) == 4  # two networks times two crossed models
            known = studies.filter(pl.col("study") == rows["study"][0])
            found = known.select(f"{c}_spread" for c in CLASSES).to_numpy()[0]
            np.testing.assert_allclose(found, highest.std(axis=0), atol=1e-6)


def test_a_study_unlike_training_is_reported_with_the_reason(
    walked: Path, tmp_path: Path, here: Callable[..., str]
) -> None:
    unseen = pl.read_csv(walked / "run" / "7_predict" / "studies.csv")
    assert not unseen["unlike_training"].any()  # like the training studies, but for their labels
    for k in range(6):
        for study, shift in (("ID_like", 0), ("ID_bright", 15)):
            hu = head(5.0 * k)
            hu = np.where(hu > 0, hu + shift, hu)
            write_slice(tmp_path / "in", f"{study}_{k}", study=study, z=5.0 * k, hu=hu)
        write_slice(tmp_path / "in", f"ID_gaps_{k}", study="ID_gaps", z=16.0 * k, hu=head(5.0 * k))
    said = here(tmp_path / "in", "--run", walked / "run", "--out", tmp_path / "out")
    assert "unlike the training data: 2 of 3 studies" in said
    assert read_manifest(tmp_path / "out").counts["unlike the training data"] == 2
    studies = {r["study"]: r for r in pl.read_csv(tmp_path / "out" / "studies.csv").iter_rows(named=True)}
    page = "".join(file.read_text(encoding="utf-8") for file in (tmp_path / "out" / "studies").iterdir())
    for study, words in (
        ("ID_bright", "brain tissue at 4"),
        ("ID_gaps", "slices every 16.0 mm (training 5.0 to"),
    ):
        assert studies[study]["unlike_training"]
        assert studies[study]["novelty"] > 1
        assert words in studies[study]["unlike_reason"]
        assert words in page
    assert not studies["ID_like"]["unlike_training"]
    assert studies["ID_bright"]["brain_hu"] == pytest.approx(studies["ID_like"]["brain_hu"] + 15, abs=1)
    measured = [name for name in NUMBERS if name != "embedding_distance"]
    assert all(0 <= studies["ID_like"][f"{name}_percentile"] <= 100 for name in measured)
    assert studies["ID_like"]["embedding_distance"] is None  # three studies per network are too few
    here(tmp_path / "in", "--run", walked / "run", "--out", tmp_path / "alone", "limit=1")
    alone = pl.read_csv(tmp_path / "alone" / "studies.csv")
    assert alone.rows() == [tuple(studies[alone["study"][0]].values())]  # whatever the other studies are


def test_the_manifest_tells_how_it_was_made(walked: Path) -> None:
    manifest = read_manifest(walked / "run" / "2_cache", verify=True)
    assert manifest.config["size"] == 32
    assert manifest.counts["slices"] == 35
    slabs = pl.read_parquet(walked / "run" / "2_cache" / "slabs.parquet")
    shifted = slabs.filter(pl.col("hu_shift") != 0)["study"].n_unique()
    assert manifest.counts["studies shifted in HU"] == shifted > 0
    assert read_manifest(walked / "run" / "7_predict").counts["studies shifted in HU"] > 0


def test_strict_reports_quarantined_input(walked: Path) -> None:
    words = ["index", "--strict", "--out", walked / "run", f"data.root={walked / 'data'}"]
    assert "quarantined" in cli(*words, *WITH_JOINT, code=3).stderr


def test_studies_json_and_dicom_results_repeat_the_tables(
    walked: Path, tmp_path: Path, here: Callable[..., str]
) -> None:
    highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed: pip install '.[clinic]'")
    test, out, dicom = walked / "data" / "stage_2_test", tmp_path / "out", tmp_path / "dicom"
    words = [test, "--run", walked / "run", "--out", out, "--dicom", dicom, "--json"]
    summary = json.loads(here(*words).splitlines()[0])
    assert summary["files"] == {
        "studies": str(out / "studies.json"),
        "report": str(out / "report.html"),
        "dicom": str(dicom),
    }
    slices, results = pl.read_csv(out / "slices.csv"), read_results(out)
    assert summary["notices"] == results.notices == [RESEARCH_ONLY]  # nothing says that these are phantoms
    assert summary["stages"]["predict"]["counts"]["studies"] == len(results.studies) == 2
    assert [row.reason for row in results.excluded] == ["pixels_truncated"]
    assert results.excluded[0].study in {study.study for study in results.studies if study.excluded == 1}
    assert results.models[0].digest == TrainedRun(walked / "run", device="cpu").identity.digest
    tables = {row["study"]: row for row in pl.read_csv(out / "studies.csv").iter_rows(named=True)}
    for study in results.studies:
        assert study.uncertainty is not None
        assert study.uncertainty.unlike_training == tables[study.study]["unlike_training"]
        assert list(study.uncertainty.spread) == list(CLASSES)
        rows = slices.filter(pl.col("study") == study.study)
        report = highdicom.sr.srread(dicom / valid_uid(study.study) / "report.dcm")
        groups = report.content.get_image_measurement_groups()
        for name, group in zip(CLASSES, groups, strict=True):
            assert group.get_measurements()[0].value == rows[name].max() == study.findings[name].probability
            assert study.findings[name].key_image.slice in rows["slice"]
    assert "predict    up to date" in (again := here(*words))
    assert "dicom      up to date" in again
    assert json.loads(again.splitlines()[0]) == summary


def test_a_folder_of_dicom_results_is_apart_from_all_others(
    walked: Path, tmp_path: Path, here: Callable[..., str]
) -> None:
    test, out = walked / "data" / "stage_2_test", tmp_path / "out"
    for dicom in (out / "dicom", tmp_path, test, walked / "run"):
        said = here(test, "--run", walked / "run", "--out", out, "--dicom", dicom, code=2)
        assert f"--dicom {dicom}" in said
    assert not out.exists()
