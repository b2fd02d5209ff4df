"""The machine's faults: what dies goes on, what is damaged is found, what runs twice is refused."""

import fcntl
import hashlib
import json
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import sleeper
import torch
from dicoms import write_set, write_slice
from ledger import answered, borne
from torch import Tensor, nn
from transfer_syntaxes import SYNTAXES, write_encoded

from rsna_seq.config import FitConfig
from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.imaging.decoder import Decoder
from rsna_seq.nets.loop import Job, fit
from rsna_seq.parallel.local import WorkerDied, parallel_map
from rsna_seq.reasons import ExclusionError, Reason

Cli = Callable[..., tuple[int, str]]
STAGES = ("index", "cache", "embed", "sequence", "stack", "evaluate")
TINY = [
    *("device=cpu", "workers=1", "cache.size=32", "cache.shard_slices=12", "index.folds=2"),
    *("index.cross_folds=2", "index.holdout=0", "embed.backbone=resnet10t", "embed.pretrained=false"),
    *(
        "embed.epochs=2",
        "embed.batch_size=8",
        "sequence.epochs=3",
        "sequence.batch_size=4",
        "sequence.projection_dim=16",
    ),
    *("sequence.hidden=8", "stack.rounds=5", "stack.min_leaf=2", "evaluate.bootstrap=20"),
]


def start(*words: object, **about: object) -> "subprocess.Popen[str]":
    """Begin a command in a process of its own."""
    command = [sys.executable, "-m", "rsna_seq", *map(str, words)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        **about,  # type: ignore[call-overload]
    )


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of every result below a run; manifests hold times."""
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in {"manifest.json", ".lock", "report.html"}
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("data"), studies=6, test_studies=0)


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
        borne(1, "kill -9 in any stage: the rerun ends in the same bytes")
        borne(3, "a half-written file is never visible")


def test_a_disk_that_is_too_small_is_named_beforehand(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    assert cli("index", "--out", tmp_path, f"data.root={data}", *TINY)[0] == 0
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    code, printed = cli("cache", "--out", tmp_path, f"data.root={data}", *TINY)
    assert (code, "GB are needed" in printed) == (5, True)


def test_a_disk_that_fills_up_leaves_no_half_file(data: Path, tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole / "1_index", tmp_path / "1_index")

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = start("cache", "--out", tmp_path, f"data.root={data}", *TINY, preexec_fn=small)
    printed, _ = done.communicate()
    assert done.returncode == 5, printed[-2000:]
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("*.npy"))
    borne(2, "a full disk: estimated beforehand, else nothing half-written and exit 5")


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
    borne(4, "a flipped bit in the cache: that shard alone is rebuilt")


def test_a_changed_config_never_meets_a_stale_artefact(
    data: Path, whole: Path, tmp_path: Path, cli: Cli
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    code, printed = cli("cache", "--out", run, f"data.root={data}", *TINY, "cache.size=48")
    assert (code, "config size" in printed) == (0, True)
    code, printed = cli("embed", "--out", run, f"data.root={data}", *TINY, "cache.size=48")
    assert (code, "--rebuild" in printed) == (6, True)
    borne(5, "a changed config: the stale artefact is never used")


def test_a_changed_file_rebuilds_its_study(tmp_path: Path, cli: Cli) -> None:
    root = write_set(tmp_path / "data", studies=6, test_studies=0)
    run = tmp_path / "run"
    words = ["--out", run, f"data.root={root}", *TINY]
    assert cli("index", *words)[0] == cli("cache", *words)[0] == 0
    before = {path.name: path.stat().st_ino for path in (run / "2_cache").glob("*.npy")}
    first = sorted((root / "stage_2_train").glob("*.dcm"))[0]
    write_slice(first.parent, first.stem, study="ID_s0", patient="ID_p0", z=0.0, hu=np.full((64, 64), 33))
    assert cli("index", *words)[0] == 0
    code, printed = cli("cache", *words)
    assert (code, "shards are sound and stay" in printed) == (0, True), printed
    after = {path.name: path.stat().st_ino for path in (run / "2_cache").glob("*.npy")}
    assert {name for name in after if after[name] != before[name]} == {"shard_0000.npy"}
    borne(6, "a source file that changed: its study is rebuilt")


def test_a_worker_that_dies_costs_its_item() -> None:
    done = list(parallel_map(sleeper.die_at_three, range(8), 2, apart=True))
    assert [d for d in done if not isinstance(d, WorkerDied)] == [0, 2, 4, 8, 10, 12, 14]
    assert isinstance(done[3], WorkerDied)


def test_a_worker_that_is_killed_once_costs_nothing(tmp_path: Path) -> None:
    jobs = [(i, str(tmp_path)) for i in range(6)]
    assert list(parallel_map(sleeper.die_once, jobs, 2, apart=True)) == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_a_decoder_that_is_killed_or_stopped_costs_nothing(tmp_path: Path, blow: signal.Signals) -> None:
    path = str(write_encoded(tmp_path, "ID_1", SYNTAXES["jpeg_2000"]))
    decoder = Decoder(wall_s=3)
    first = decoder.decode(path, 0, (64, 64))
    os.kill(decoder.pid or 0, blow)
    np.testing.assert_array_equal(decoder.decode(path, 0, (64, 64)), first)
    decoder.close()


@pytest.mark.parametrize(
    ("limits", "detail"), [({"patience_s": 1e-6}, "CPU time"), ({"wall_s": 0.05}, "no reply within 0.05 s")]
)
def test_a_frame_that_takes_too_long_costs_its_file(
    tmp_path: Path, limits: dict[str, float], detail: str
) -> None:
    path = str(write_encoded(tmp_path, "ID_1", SYNTAXES["jpeg_2000"]))
    if "wall_s" in limits:
        os.mkfifo(path := str(tmp_path / "fifo"))  # what opens it waits
    else:
        noise = np.random.default_rng(0).integers(-1000, 1000, (512, 512))
        path = str(write_encoded(tmp_path, "ID_2", SYNTAXES["jpeg_2000"], hu=noise))
    decoder = Decoder(**limits)
    with pytest.raises(ExclusionError, match=detail) as error:
        decoder.decode(path, 0, (512, 512))
    assert error.value.reason == Reason.DECODE_TIMEOUT
    decoder.close()
    borne(7, "a worker that dies on one file: the file is named, the rest goes on")
    borne(8, "a decoder that hangs: limited in time")


def test_a_run_that_is_held_is_refused(data: Path, tmp_path: Path, cli: Cli) -> None:
    folder = tmp_path / "1_index"
    folder.mkdir()
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, printed = cli("index", "--out", tmp_path, f"data.root={data}", *TINY)
    assert (code, "another run" in printed) == (6, True)
    borne(12, "two runs into one folder: the second exits 6")


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
    borne(13, "SIGTERM ends with 143, Ctrl-C with 130; both can go on")


def test_no_network_is_asked_for_anything(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    code, printed = cli("run", "--out", tmp_path / "run", f"data.root={data}", *TINY)
    assert code == 0, printed[-2000:]
    borne(14, "no network: no call is made")


def test_input_is_never_written_to(data: Path, whole: Path, tmp_path: Path) -> None:
    names = {path.name for path in data.rglob("*") if path.is_file()}
    assert names == {p.name for p in data.rglob("*.dcm")} | {
        "stage_2_train.csv",
        "stage_2_sample_submission.csv",
    }
    root = tmp_path / "data"
    shutil.copytree(data, root)
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = start("index", "--out", tmp_path / "run", f"data.root={root}", *TINY)
    printed, _ = done.communicate()
    assert done.returncode == 0, printed
    borne(15, "read-only input works")


def test_workers_are_spawned() -> None:
    told = list(parallel_map(sleeper.how_started, [1, 2], 2, apart=True))
    assert all("multiprocessing" in str(each) for each in told)
    borne(17, "workers are spawned, never forked")


# training


def _job(losses: list[float], fits: int = 99) -> Job:
    """A line to be learnt, whose losses are multiplied, in batches of which only so many samples fit."""
    torch.manual_seed(0)
    net, given = nn.Linear(3, 1), iter(losses)
    batches = list(torch.randn(8, 16, 3))

    def measure(model: nn.Module, batch: Tensor) -> Tensor:
        if len(batch) > fits:
            raise torch.OutOfMemoryError
        return next(given, 1.0) * ((model(batch) - batch.sum(1, keepdim=True)) ** 2).mean()

    def split(batch: Tensor, pieces: int) -> list[tuple[Tensor, float]]:
        return [(part, len(part) / len(batch)) for part in batch.chunk(pieces)]

    return Job(
        "test", net, 8, lambda _: batches, measure, split, lambda model: float(model.weight.detach().sum())
    )


def test_a_batch_that_memory_does_not_hold_is_halved(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = fit(_job([]), FitConfig(epochs=1), tmp_path / "whole", device=torch.device("cpu"), seed=0)
    cut = fit(_job([], fits=8), FitConfig(epochs=1), tmp_path / "cut", device=torch.device("cpu"), seed=0)
    torch.testing.assert_close(cut.weight, whole.weight)
    assert "memory" in capfd.readouterr().err
    borne(9, "GPU out of memory: the batch halves, recorded")


def test_losses_that_are_no_number_stop_with_the_last_good_weights(tmp_path: Path) -> None:
    few = fit(_job([1, math.nan]), FitConfig(epochs=1), tmp_path / "few", device=torch.device("cpu"), seed=0)
    assert torch.isfinite(few.weight).all()
    many = _job([1.0] * 8 + [math.nan] * 16)
    with pytest.raises(EnvironmentFaultError, match="loss was not finite"):
        fit(many, FitConfig(epochs=3), tmp_path / "many", device=torch.device("cpu"), seed=0)
    assert (tmp_path / "many" / "last.safetensors").is_file()
    borne(10, "NaN loss: a few steps skipped, then the last good weights are kept")


def test_two_epochs_killed_and_two_more_are_four(tmp_path: Path) -> None:
    cfg, cpu = FitConfig(epochs=4), torch.device("cpu")
    whole = fit(_job([]), cfg, tmp_path / "whole", device=cpu, seed=0)
    job, batches = _job([]), _job([]).batches

    def dies(epoch: int) -> list[Tensor]:
        if epoch == 2:
            raise KeyboardInterrupt
        return list(batches(epoch))

    with pytest.raises(KeyboardInterrupt):
        fit(replace(job, batches=dies), cfg, tmp_path / "cut", device=cpu, seed=0)
    again = fit(_job([]), cfg, tmp_path / "cut", device=cpu, seed=0)
    torch.testing.assert_close(again.weight, whole.weight, rtol=0, atol=0)
    borne(11, "two epochs, killed, two more: four epochs")


def test_a_class_that_is_absent_has_no_areas_and_stops_nothing(whole: Path) -> None:
    metrics = json.loads((whole / "6_evaluate" / "metrics.json").read_text(encoding="utf-8"))
    absent = {
        name: found for name, found in metrics["out_of_fold"]["classes"].items() if not found["positive"]
    }
    assert absent
    assert all(found["auc"] is None for found in absent.values())
    borne(16, "a class absent from a fold: that metric is null")


# learned artefacts that are not what was written


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
    import pickle

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


def test_patients_names_are_nowhere(tmp_path: Path, cli: Cli) -> None:
    root = tmp_path / "data"
    canary = "CANARY^OF^THE^MINE"
    about = {"PatientName": canary, "ReferringPhysicianName": canary, "PatientAddress": canary}
    for i in range(4):
        write_slice(root, f"ID_{i}", z=5.0 * i, **about)
    bad = write_slice(root, "ID_bad", z=50.0, RescaleSlope=None, **about)
    cut = write_slice(root, "ID_cut", z=55.0, **about)
    cut.write_bytes(cut.read_bytes()[:500])
    printed = ""
    for stage in ("index", "cache"):
        code, said = cli(stage, "--out", tmp_path / "run", f"data.root={root}", *TINY)
        assert code == 0
        printed += said
    code, said = cli("png", root, "--out", tmp_path / "png")
    assert code == 0
    written = b"".join(
        p.read_bytes() for f in ("run", "png") for p in (tmp_path / f).rglob("*") if p.is_file()
    )
    assert bad.exists()
    for word in ("CANARY", "MINE"):
        assert word not in printed + said
        assert word.encode() not in written
