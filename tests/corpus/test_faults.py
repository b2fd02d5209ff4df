"""Runs that are interrupted or damaged: they go on to the same bytes, or the damage is found."""

import json
import os
import pickle
import shutil
import signal
import time
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import small_files
from dicoms import write_slice
from fault_runs import STAGES, TINY, Cli, digests, start
from ledger import answered, handled


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = start("run", "--out", run, f"data.root={data}", *TINY)
    printed, _ = done.communicate()
    assert done.returncode == 0, printed[-3000:]
    return run


@pytest.mark.parametrize("moment", range(int(os.environ.get("RSNA_SEQ_KILLS", "1"))))
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_killed_goes_on_to_the_same_bytes(
    data: Path, whole: Path, tmp_path: Path, stage: str, moment: int
) -> None:
    run = tmp_path / "run"
    before = [whole / f"{i + 1}_{name}" for i, name in enumerate(STAGES[: STAGES.index(stage)])]
    for folder in before:
        shutil.copytree(folder, run / folder.name)
    words = [stage, "--out", run, f"data.root={data}", *TINY]
    killed = start(*words)
    time.sleep(float(np.random.default_rng([moment, *stage.encode()]).uniform(0.8, 3.5)))
    killed.kill()
    killed.communicate()
    folder = run / f"{STAGES.index(stage) + 1}_{stage}"
    complete = (folder / "manifest.json").exists()
    for path in folder.rglob("*.npy"):
        np.load(path, mmap_mode="r")  # none is half-written
    done = start(*words)
    printed, _ = done.communicate()
    assert done.returncode == 0, printed[-3000:]
    assert ("up to date" in printed) == complete
    mine = {k: v for k, v in digests(run).items() if k.startswith(folder.name)}
    assert mine == {k: v for k, v in digests(whole).items() if k.startswith(folder.name)}
    assert not list(run.rglob("*.part"))
    if stage == STAGES[-1]:
        handled(1, "kill -9 in any stage: the rerun ends in the same bytes")
        handled(3, "a half-written file is never visible")


def test_a_disk_that_fills_up_leaves_no_half_file(data: Path, tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole / "1_index", tmp_path / "1_index")
    limit = small_files(10_000)
    done = start("cache", "--out", tmp_path, f"data.root={data}", *TINY, preexec_fn=limit)
    printed, _ = done.communicate()
    assert done.returncode == 5, printed[-2000:]
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("*.npy"))
    handled(2, "a full disk: estimated beforehand, else nothing half-written and exit 5")


def test_a_flipped_bit_costs_its_shard_alone(data: Path, whole: Path, tmp_path: Path, cli: Cli) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shards = sorted((run / "2_cache").glob("shard_*.npy"))
    assert len(shards) > 1
    before = {path: path.stat().st_ino for path in shards}
    flipped = bytearray(shards[0].read_bytes())
    flipped[5000] ^= 1
    shards[0].write_bytes(flipped)
    code, printed = cli("cache", "--out", run, f"data.root={data}", *TINY)
    assert code == 0, printed
    assert "shard_0000.npy: damaged" in printed
    assert {p for p in shards if p.stat().st_ino != before[p]} == {shards[0]}
    assert digests(run) == digests(whole)
    code, printed = cli("embed", "--out", run, f"data.root={data}", *TINY)
    assert (code, "up to date" in printed) == (0, True)
    handled(4, "a flipped bit in the cache: that shard alone is rebuilt")


def test_a_changed_config_never_meets_a_stale_artefact(
    data: Path, whole: Path, tmp_path: Path, cli: Cli
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    code, printed = cli("cache", "--out", run, f"data.root={data}", *TINY, "cache.size=48")
    assert (code, "config size" in printed) == (0, True)
    code, printed = cli("embed", "--out", run, f"data.root={data}", *TINY, "cache.size=48")
    assert (code, "--rebuild" in printed) == (6, True)
    handled(5, "a changed config: the stale artefact is never used")


@pytest.mark.parametrize(("blow", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_that_can_go_on(
    data: Path, whole: Path, tmp_path: Path, blow: signal.Signals, code: int
) -> None:
    for name in ("1_index", "2_cache"):
        shutil.copytree(whole / name, tmp_path / name)
    words = ["embed", "--out", tmp_path, f"data.root={data}", *TINY]
    running = start(*words, "embed.epochs=400")
    folder = tmp_path / "3_embed"
    began = time.monotonic()
    while not list(folder.rglob("*.safetensors")) and time.monotonic() - began < 60:
        time.sleep(0.05)
    running.send_signal(blow)
    printed, _ = running.communicate(timeout=60)
    assert running.returncode == code, printed[-2000:]
    assert "Traceback" not in printed
    assert not list(tmp_path.rglob("*.part"))
    assert list(folder.rglob("*.safetensors"))
    handled(13, "SIGTERM ends with 143, Ctrl-C with 130; both can go on")


def test_a_class_that_is_absent_has_no_areas_and_stops_nothing(whole: Path) -> None:
    metrics = json.loads((whole / "6_evaluate" / "metrics.json").read_text(encoding="utf-8"))
    absent = {
        name: found for name, found in metrics["out_of_fold"]["classes"].items() if not found["positive"]
    }
    assert absent
    assert all(found["auc"] is None for found in absent.values())
    handled(16, "a class absent from a fold: that metric is null")


@pytest.mark.parametrize(
    ("number", "victim", "title"),
    [
        (49, "3_embed/fold0/last.safetensors", "a pickle as a checkpoint"),
        (50, "5_stack/boosters/0_any.txt", "a booster's text whose hash differs"),
    ],
)
def test_what_was_not_written_by_a_run_is_refused(
    data: Path, whole: Path, tmp_path: Path, cli: Cli, number: int, victim: str, title: str
) -> None:

    run = tmp_path / "run"
    shutil.copytree(whole, run)
    file = run / victim
    assert file.exists()
    file.write_bytes(
        pickle.dumps({"a": 1}) if number == 49 else file.read_bytes().replace(b"leaf", b"LEAF", 1)
    )
    code, printed = cli(
        "predict", data / "stage_2_train", "--run", run, "--out", tmp_path / "out", "device=cpu"
    )
    assert code == 6, printed
    assert not (tmp_path / "out").exists()
    if number == 49:
        (tmp_path / "w.pt").write_bytes(pickle.dumps({"a": 1}))
        words = [
            "--out",
            run,
            f"data.root={data}",
            *TINY,
            f"embed.pretrained={tmp_path / 'w.pt'}",
            "--rebuild",
        ]
        code, printed = cli("embed", *words)
        assert (code, "pickled weights are never opened" in printed) == (6, True)
    answered(number, title, "refused", code)


def test_a_prediction_meets_archives_and_hostile_names(
    data: Path, whole: Path, tmp_path: Path, cli: Cli
) -> None:
    archive = tmp_path / "studies.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for i, path in enumerate(sorted((data / "stage_2_train").glob("*.dcm"))[:12]):
            file.write(path, f"folder/{i}.dcm")
    hostile = tmp_path / "hostile"
    for i, study in enumerate(("<script>alert(1)</script>", "../../../ID_escaped")):
        for k in range(3):
            write_slice(hostile, f"ID_{i}{k}", study=study, patient=f"ID_{i}", z=5.0 * k)
    (hostile / "empty.dcm").touch()
    out = tmp_path / "deep" / "er" / "out"
    words = ["--run", whole, "--out", out, "device=cpu", "--strict"]
    code, printed = cli("predict", archive, hostile, *words)
    assert code == 3, printed
    assert "the file is empty" in printed
    answered = pl.read_csv(out / "slices.csv")
    assert len(answered) == 18
    assert answered["file"].str.starts_with("studies.zip!/folder/").sum() == 12
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert not list(tmp_path.rglob("ID_escaped*"))
    code, _ = cli("png", hostile, "--out", tmp_path / "deep" / "png")
    assert code == 0
    assert {p.parent.parent for p in tmp_path.rglob("*.png")} == {tmp_path / "deep" / "png"}
