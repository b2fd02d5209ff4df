"""The corridor from DICOM bytes to a submission, through the command line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from dicoms import head, write_set, write_slice

import rsna_seq
from rsna_seq.artifacts import read_manifest
from rsna_seq.labels import CLASSES

QUICK = [
    "device=cpu",
    "cache.size=32",
    "index.folds=2",
    "index.cross_folds=2",
    "index.holdout=0",
    "embed.backbone=resnet10t",
    "embed.pretrained=false",
    "embed.epochs=1",
    "embed.batch=8",
    "sequence.epochs=1",
    "sequence.batch=4",
    "sequence.project=16",
    "sequence.hidden=8",
    "stack.rounds=5",
    "stack.min_leaf=2",
    "evaluate.bootstrap=20",
    "workers=1",
]


def cli(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "rsna_seq", *map(str, words)],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run on a tiny set with one training file and one test file cut short."""
    root = tmp_path_factory.mktemp("set")
    write_set(root / "data")
    for folder in ("stage_2_train", "stage_2_test"):
        file = sorted((root / "data" / folder).glob("*.dcm"))[1]
        file.write_bytes(file.read_bytes()[:4000])
    cli("run", "--out", root / "run", f"data.root={root / 'data'}", *QUICK)
    return root


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
    assert manifest.set_aside == {"no_place": 1}
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


@pytest.mark.parametrize("z_mm", [None, [0.0, 5.0], [10.0, 5.0, 0.0]])
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


def test_studies_csv_says_where_the_maximum_lies(walked: Path) -> None:
    out = walked / "run" / "7_predict"
    slices, studies = pl.read_csv(out / "slices.csv"), pl.read_csv(out / "studies.csv")
    for study in studies.iter_rows(named=True):
        rows = slices.filter(pl.col("study") == study["study"])
        assert study["any"] == rows["any"].max()
        assert study["any_z_mm"] in rows.filter(pl.col("any") == pl.col("any").max())["z_mm"]


def test_a_second_run_reuses_every_stage(walked: Path) -> None:
    said = cli("run", "--out", walked / "run", f"data.root={walked / 'data'}", *QUICK).stderr
    assert said.count("up to date") == 6 + 2 + 1  # the stages, the folds of embed, the prediction


def test_two_runs_with_one_seed_submit_the_same_bytes(walked: Path, tmp_path: Path) -> None:
    cli("run", "--out", tmp_path / "again", f"data.root={walked / 'data'}", *QUICK)
    names = ("7_predict/submission.csv", "6_evaluate/metrics.json", "5_stack/logits.parquet")
    assert all((tmp_path / "again" / n).read_bytes() == (walked / "run" / n).read_bytes() for n in names)


def test_the_manifest_tells_how_it_was_made(walked: Path) -> None:
    manifest = read_manifest(walked / "run" / "2_cache", verify=True)
    assert manifest.config["size"] == 32
    assert manifest.counts["slices"] == 35


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["embed", "embed.epoch=3"], 2, "embed.epoch"),
        (["run", "data.root=/no/such/folder"], 2, "/no/such/folder"),
        (["no-such-command"], 2, "no-such-command"),
        (["cache", "--out", "{tmp}/none"], 6, "run its stage first"),
        (["predict", "{tmp}", "--run", "{tmp}/none", "--out", "{tmp}/out"], 6, "nothing finished here"),
        (["index", "--out", "{tmp}/run", "data.root={tmp}"], 4, "no readable CT slice"),
    ],
)
def test_exit_codes(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    assert said in cli(*(w.format(tmp=tmp_path) for w in words), code=code).stderr


def test_strict_reports_quarantined_input(walked: Path) -> None:
    assert (
        "quarantined"
        in cli(
            "index", "--strict", "--out", walked / "run", f"data.root={walked / 'data'}", *QUICK, code=3
        ).stderr
    )
