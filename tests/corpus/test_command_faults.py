"""Commands that meet a small disk, changed or read-only files, another run, no network, names of patients."""

import fcntl
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from dicoms import write_set, write_slice
from fault_runs import TINY, Cli, start
from ledger import handled


def test_a_disk_that_is_too_small_is_named_beforehand(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    assert cli("index", "--out", tmp_path, f"data.root={data}", *TINY)[0] == 0
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    code, printed = cli("cache", "--out", tmp_path, f"data.root={data}", *TINY)
    assert (code, "GB are needed" in printed) == (5, True)


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
    handled(6, "a source file that changed: its study is rebuilt")


def test_a_run_that_is_held_is_refused(data: Path, tmp_path: Path, cli: Cli) -> None:
    folder = tmp_path / "1_index"
    folder.mkdir()
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, printed = cli("index", "--out", tmp_path, f"data.root={data}", *TINY)
    assert (code, "another run" in printed) == (6, True)
    handled(12, "two runs into one folder: the second exits 6")


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
    handled(14, "no network: no call is made")


def test_input_is_never_written_to(data: Path, tmp_path: Path) -> None:
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
    handled(15, "read-only input works")


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
