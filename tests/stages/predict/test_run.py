"""All stages through the command line: from DICOM bytes to a submission."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import cli, write_study
from dicoms import head, write_slice
from tiny_run import WITH_JOINT

import rsna_seq
from rsna_seq.errors import IntegrityError, UsageError
from rsna_seq.imaging.volume import Volume
from rsna_seq.labels import CLASSES
from rsna_seq.stages.predict.trained import Answers, TrainedRun
from rsna_seq.store.artifacts import read_manifest
from rsna_seq.store.run_folder import RunFolder


def test_the_submission_answers_exactly_the_sample(walked: Path) -> None:
    sample = pl.read_csv(walked / "data" / "stage_2_sample_submission.csv")
    answer = pl.read_csv(walked / "run" / "7_predict" / "submission.csv")
    assert answer["ID"].equals(sample["ID"])
    assert answer["Label"].is_between(1e-5, 1 - 1e-5).all()


def test_a_wrapped_study_and_a_position_beyond_any_scanner_are_scored_soundly(
    walked: Path, tmp_path: Path
) -> None:
    about = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, "RescaleIntercept": 0}
    for i in range(6):
        hu = head(5.0 * i, bleed=i == 2)
        far = {"ImagePositionPatient": ["-64", "-64", "1e300"]} if i in {2, 5} else {}
        wrapped = {**about, "PixelData": (hu % 4096).astype("<u2").tobytes()}
        write_slice(tmp_path / "a", f"ID_plain{i}", study="ID_a", z=5.0 * i, hu=hu)
        write_slice(
            tmp_path / "a", f"ID_wrap{i}", study="ID_b", z=5.0 * i, hu=hu, InstanceNumber=i, **wrapped, **far
        )
    cli(
        "predict",
        tmp_path / "a",
        "--run",
        walked / "run",
        "--out",
        tmp_path / "out",
        "device=cpu",
        "workers=1",
    )
    manifest = read_manifest(tmp_path / "out")
    assert manifest.counts["12-bit wraps corrected"] == 5
    assert manifest.excluded == {"no_place": 1}
    slices = pl.read_csv(tmp_path / "out" / "slices.csv")
    assert len(slices) == 11
    assert slices.select(pl.col(CLASSES).is_between(0, 1, closed="none").all()).row(0) == (True,) * 6
    plain = slices.filter(pl.col("study") == "ID_a").filter(pl.col("slice") != "ID_plain5")
    wrapped = slices.filter(pl.col("study") == "ID_b")
    assert plain["z_mm"].to_list() == wrapped["z_mm"].to_list()


def test_a_slice_that_cannot_be_read_takes_its_neighbours_answer(walked: Path) -> None:
    out = walked / "run" / "7_predict"
    lost = pl.read_parquet(out / "quarantine.parquet").row(0, named=True)
    assert lost["reason"] == "pixels_truncated"
    slices = pl.read_csv(out / "slices.csv").filter(pl.col("study") == lost["study"])
    away = slices.with_columns(away=(pl.col("z_mm") - lost["z_mm"]).abs())
    near = away.filter(pl.col("away") == pl.col("away").min())
    answer = pl.read_csv(out / "submission.csv").filter(pl.col("ID").str.starts_with(lost["slice"]))
    for name in CLASSES:
        found = answer.filter(pl.col("ID").str.ends_with(f"_{name}"))["Label"].item()
        assert found == pytest.approx(near[name].mean(), abs=2e-8)


def test_a_study_scores_the_same_alone_and_among_others(walked: Path, tmp_path: Path) -> None:
    train = walked / "data" / "stage_2_train"
    together = rsna_seq.predict(train, walked / "run")
    for file in pl.Series(together.filter(pl.col("study") == "ID_s3")["file"]):
        (tmp_path / "alone").mkdir(exist_ok=True)
        (tmp_path / "alone" / file).write_bytes((train / file).read_bytes())
    alone = rsna_seq.predict(tmp_path / "alone", str(walked / "run"))
    both = alone.join(together, on="slice", suffix="_together")
    assert len(both) == len(alone) == 6
    for name in CLASSES:
        np.testing.assert_allclose(both[name], both[f"{name}_together"], atol=1e-5, rtol=0)


def test_an_array_scores_as_its_files_do(walked: Path, tmp_path: Path) -> None:
    z_mm = np.arange(6) * 5.0
    hu = np.stack([head(z, bleed=k == 2) for k, z in enumerate(z_mm)])
    for k, z in enumerate(z_mm):
        write_slice(tmp_path / "study", f"ID_{k}", z=float(z), hu=hu[k])
    files = rsna_seq.predict(tmp_path / "study", walked / "run")
    array = rsna_seq.predict(hu, walked / "run", z_mm=z_mm)
    np.testing.assert_allclose(array.select(CLASSES).to_numpy(), files.select(CLASSES).to_numpy(), atol=1e-6)


@pytest.mark.parametrize("z_mm", [None, [0.0, 5.0], [10.0, 5.0, 0.0], [0.0, np.nan, 5.0]])
def test_an_array_without_rising_positions_is_refused(walked: Path, z_mm: list[float] | None) -> None:
    geometry = {} if z_mm is None else {"z_mm": z_mm}
    with pytest.raises(ValueError, match="z_mm"):
        rsna_seq.predict(np.zeros((3, 64, 64), dtype=np.int16), walked / "run", **geometry)


def test_several_runs_are_averaged(walked: Path, tmp_path: Path) -> None:
    test, run = walked / "data" / "stage_2_test", walked / "run"
    cli("predict", test, "--run", run, "--run", run, "--out", tmp_path / "both", "device=cpu")
    once = pl.read_csv(run / "7_predict" / "slices.csv")
    twice = pl.read_csv(tmp_path / "both" / "slices.csv")
    np.testing.assert_allclose(twice.select(CLASSES).to_numpy(), once.select(CLASSES).to_numpy(), atol=1e-7)


def test_averaging_the_flipped_study_changes_the_answer(walked: Path, tmp_path: Path) -> None:
    cli(
        "predict",
        walked / "data" / "stage_2_test",
        "--run",
        walked / "run",
        "--out",
        tmp_path,
        "--tta",
        "device=cpu",
    )
    plain = pl.read_csv(walked / "run" / "7_predict" / "slices.csv")
    assert not plain.equals(pl.read_csv(tmp_path / "slices.csv"))


def test_a_second_run_reuses_every_stage(walked: Path) -> None:
    done = cli("run", "--out", walked / "run", f"data.root={walked / 'data'}", *WITH_JOINT, "--json")
    assert done.stderr.count("up to date") == 7 + 2 + 2 + 1  # stages, folds, the prediction
    summary = json.loads(done.stdout)
    assert summary["command"] == "run"
    stages = ("index", "cache", "embed", "sequence", "joint", "stack", "evaluate", "predict")
    assert tuple(summary["stages"]) == stages
    for stage, told in summary["stages"].items():
        manifest = read_manifest(RunFolder(walked / "run")[stage])
        assert told["counts"] == manifest.counts
        assert told["content"] == manifest.content


def test_two_runs_with_one_seed_submit_the_same_bytes(walked: Path, tmp_path: Path) -> None:
    cli("run", "--out", tmp_path / "again", f"data.root={walked / 'data'}", *WITH_JOINT)
    names = ("7_predict/submission.csv", "6_evaluate/metrics.json", "5_stack/logits.parquet")
    assert all((tmp_path / "again" / n).read_bytes() == (walked / "run" / n).read_bytes() for n in names)


@pytest.mark.parametrize("sampled", [False, True])
def test_an_input_that_does_not_exist_is_refused(
    walked: Path, tmp_path: Path, here: Callable[..., str], sampled: bool
) -> None:
    sample = ["--sample", walked / "data" / "stage_2_sample_submission.csv"] if sampled else []
    words = [tmp_path / "mistyped", "--run", walked / "run", "--out", tmp_path / "out", *sample]
    for inputs in ([], [walked / "data" / "stage_2_test"]):
        assert "mistyped does not exist" in here(*inputs, *words, code=2)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="does not exist"):
        rsna_seq.predict(tmp_path / "mistyped", walked / "run")


def test_a_single_file_is_scored(walked: Path, tmp_path: Path, here: Callable[..., str]) -> None:
    file = write_study(tmp_path / "in", "ID_one")[0]
    here(file, "--run", walked / "run", "--out", tmp_path / "out")
    assert pl.read_csv(tmp_path / "out" / "slices.csv")["file"].to_list() == [file.name]


def test_the_result_of_another_input_is_replaced_only_by_rebuild(
    walked: Path, tmp_path: Path, here: Callable[..., str]
) -> None:
    one, two, out = (tmp_path / name for name in ("in/one", "in/two", "out"))
    write_study(one, "ID_one")
    write_study(two, "ID_two")
    words = ["--run", walked / "run", "--out", out]
    here(one, *words)
    known = (out / "slices.csv").read_bytes()
    for inputs in ([two], [one, two], [tmp_path / "in"]):
        said = here(*inputs, *words, code=2)
        assert f"contains the result of another input ({one})" in said
        assert "--rebuild" in said
    assert (out / "slices.csv").read_bytes() == known
    (tmp_path / "link").symlink_to(one)
    assert "up to date" in here(tmp_path / "link", one, *words)
    here(two, *words, "--rebuild")
    assert pl.read_csv(out / "studies.csv")["study"].to_list() == ["ID_two"]


def test_several_inputs_are_one_index(walked: Path, tmp_path: Path, here: Callable[..., str]) -> None:
    write_study(tmp_path / "in" / "a", "ID_good")
    write_study(tmp_path / "in" / "a", "ID_mixed", patient="ID_one")
    write_slice(tmp_path / "in" / "b", "ID_other", study="ID_mixed", patient="ID_two")
    write_study(tmp_path / "in" / "b", "ID_good")  # a copy
    write_study(tmp_path / "in" / "b" / "deep", "ID_deep")
    (tmp_path / "link").symlink_to(tmp_path / "in" / "a")
    places = [tmp_path / name for name in ("in/a", "in/b", "link", "in/b/deep", "in/a/../a")]
    here(*places, "--run", walked / "run", "--out", tmp_path / "out")
    slices = pl.read_csv(tmp_path / "out" / "slices.csv")
    assert sorted(slices["file"]) == sorted(
        [f"a/ID_good_{k}.dcm" for k in range(3)] + [f"b/deep/ID_deep_{k}.dcm" for k in range(3)]
    )
    aside = pl.read_parquet(tmp_path / "out" / "quarantine.parquet")
    counts = dict(aside.group_by("reason").len().rows())
    assert counts == {"mixed_patients": 4, "duplicate_file": 3}
    assert read_manifest(tmp_path / "out").config["root"] == str(tmp_path / "in")
    once = rsna_seq.predict(tmp_path / "in" / "a", walked / "run").filter(pl.col("study") == "ID_good")
    both = slices.join(once, on="slice", suffix="_once")
    np.testing.assert_allclose(both["any"], both["any_once"], atol=1e-6)


def test_damaged_members_of_a_zip_cost_themselves(
    walked: Path, tmp_path: Path, here: Callable[..., str]
) -> None:
    files = write_study(tmp_path, "ID_zip")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in files:
            archive.write(file, file.name)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(b"ID_zip_1") + 4000] ^= 1
    (tmp_path / "a.zip").write_bytes(data)
    here(tmp_path / "a.zip", "--run", walked / "run", "--out", tmp_path / "out")
    assert pl.read_csv(tmp_path / "out" / "slices.csv")["slice"].to_list() == ["ID_zip_0", "ID_zip_2"]
    aside = pl.read_parquet(tmp_path / "out" / "quarantine.parquet")
    assert aside.select("file", "reason").rows() == [("a.zip!/ID_zip_1.dcm", "bad_member")]


def test_a_file_that_is_quarantined_makes_a_prediction_stale(
    walked: Path, tmp_path: Path, here: Callable[..., str]
) -> None:
    write_study(tmp_path / "in", "ID_good")
    words = [tmp_path / "in", "--run", walked / "run", "--out", tmp_path / "out", "--strict"]
    here(*words)
    assert "up to date" in here(*words)
    (tmp_path / "in" / "empty.dcm").touch()
    assert "empty_file" in here(*words, code=3)


@pytest.mark.parametrize("fault", ["decode", "index"])
def test_nothing_usable_leaves_its_reasons(
    walked: Path, tmp_path: Path, here: Callable[..., str], fault: str
) -> None:
    elements = {"RescaleIntercept": 20000} if fault == "decode" else {"RescaleSlope": 0}
    write_study(tmp_path / "in", "ID_lost", **elements)
    reason = "implausible_hu" if fault == "decode" else "bad_rescale"
    words = [tmp_path / "in", "--run", walked / "run"]
    for _ in range(2):
        said = here(*words, "--out", tmp_path / "out", code=4)
        assert f"3 {reason}" in said
        aside = pl.read_parquet(tmp_path / "out" / "quarantine.parquet")
        assert aside["reason"].to_list() == [reason] * 3
        assert not (tmp_path / "out" / "manifest.json").exists()
    sample = walked / "data" / "stage_2_sample_submission.csv"
    said = here(*words, "--out", tmp_path / "answered", "--sample", sample)
    assert "12 from the prior" in said
    assert len(pl.read_csv(tmp_path / "answered" / "submission.csv")) == 72
    write_study(tmp_path / "in", "ID_good")
    here(*words, "--out", tmp_path / "out")
    assert len(pl.read_csv(tmp_path / "out" / "slices.csv")) == 3


def test_a_series_that_is_found_nowhere_is_refused(
    walked: Path, tmp_path: Path, here: Callable[..., str]
) -> None:
    write_study(tmp_path / "in", "ID_good")
    words = [tmp_path / "in", "--run", walked / "run", "--out", tmp_path / "out", "--series"]
    assert "'1.2.3' was not found in any study" in here(*words, "1.2.3", code=2)
    here(*words, "ID_good_series")


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.5])
def test_a_study_without_probabilities_is_excluded_and_the_others_are_scored(
    walked: Path, tmp_path: Path, here: Callable[..., str], monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    write_study(tmp_path / "in", "ID_good")
    write_study(tmp_path / "in", "ID_strange")
    whole = TrainedRun.answers

    def strange(self: TrainedRun, volume: Volume, **about: bool) -> Answers:
        answer = whole(self, volume, **about)
        if volume.study in {"ID_strange", "array"}:
            answer.probabilities[:, 1:2, 2] = value
        return answer

    monkeypatch.setattr(TrainedRun, "answers", strange)
    sample = tmp_path / "sample.csv"
    ids = [f"ID_{name}_{k}_{c},0.5" for name in ("good", "strange") for k in range(3) for c in CLASSES]
    sample.write_text("\n".join(["ID,Label", *ids]) + "\n", encoding="utf-8")
    said = here(tmp_path / "in", "--run", walked / "run", "--out", tmp_path / "out", "--sample", sample)
    assert "3 from the prior" in said
    assert "(bad_result)" in said
    assert set(pl.read_csv(tmp_path / "out" / "slices.csv")["study"]) == {"ID_good"}
    aside = pl.read_parquet(tmp_path / "out" / "quarantine.parquet")
    assert aside.select("slice", "reason").rows() == [(f"ID_strange_{k}", "bad_result") for k in range(3)]
    with pytest.raises(IntegrityError, match="did not return a probability"):
        rsna_seq.predict(np.stack([head(5.0 * k) for k in range(3)]), walked / "run", z_mm=[0, 5, 10])
