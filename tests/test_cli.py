"""The command line as a user meets it: exit codes, plain sentences, streams that are closed or cut."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from dicoms import write_set
from safetensors.numpy import save_file
from test_config import command

from rsna_seq.errors import IntegrityError
from rsna_seq.store.files import atomic_path
from rsna_seq.terminal import failures

ENV = os.environ | {"OMP_NUM_THREADS": "1"}


def shell(line: str) -> tuple[int, str]:
    """Run ``$R`` as ``python -m rsna_seq`` in a shell; exit code of the command, and what was printed."""
    done = subprocess.run(
        ["bash", "-c", f'R="{sys.executable} -m rsna_seq"; {line}'],
        capture_output=True,
        text=True,
        timeout=60,
        env=ENV,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("data"), studies=4, slices=3, test_studies=1)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("$R config 2>&-", 0),
        ("$R config >&- 2>&-", 0),
        ("$R config <&- >/dev/null", 0),
        ("$R config a=1 >&- 2>&-", 2),
        ("$R --bogus 2>&-", 2),
        ("$R config >/dev/full", 5),
        ("$R config a=1 2>/dev/full", 2),
        ("$R config | head -c 1 >/dev/null; exit ${PIPESTATUS[0]}", 0),
        ("$R config a=1 2>&1 | true; exit ${PIPESTATUS[0]}", 2),
        ("$R index --help | true; exit ${PIPESTATUS[0]}", 0),
    ],
)
def test_streams_that_are_closed_full_or_cut_change_no_exit_code(line: str, code: int) -> None:
    found, printed = shell(line)
    assert found == code, printed
    assert "Traceback" not in printed
    assert "Exception ignored" not in printed


def test_a_stage_goes_on_where_nobody_reads_what_it_says(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for redirect in ("2>&-", "2>&1 | true; exit ${PIPESTATUS[0]}"):
        code, printed = shell(f"$R index --rebuild --out {out} data.root={data} workers=1 {redirect}")
        assert code == 0, printed
        assert len(pl.read_parquet(out / "1_index" / "slices.parquet")) == 12


Place = Callable[[Path], list[object]]
WRONG: dict[str, Place] = {
    "--out is a file": lambda t: ["index", "--out", t / "file"],
    "--out below a file": lambda t: ["cache", "--out", t / "file" / "run"],
    "--out is too long": lambda t: ["embed", "--out", t / ("x" * 300)],
    "synth --out is a file": lambda t: ["synth", "--out", t / "file", "synth.studies=1"],
    "png --out is a file": lambda t: ["png", t, "--out", t / "file"],
    "predict --out is a file": lambda t: ["predict", t, "--run", t, "--out", t / "file"],
    "a missing sample": lambda t: ["predict", t, "--run", t, "--out", t / "o", "--sample", t / "none.csv"],
    "a folder as sample": lambda t: ["predict", t, "--run", t, "--out", t / "o", "--sample", t],
    "a long override": lambda t: ["predict", t, "--run", t, "--out", t / "o", "seed=" + "9" * 400],
    "a missing label file": lambda t: ["index", "--out", t / "o", f"data.root={t}", "data.labels=none.csv"],
    "a folder as labels": lambda t: ["index", "--out", t / "o", f"data.root={t}", f"data.labels={t}"],
    "labels: a folder": lambda t: ["labels", t, t / "wide.csv"],
    "labels: a missing file": lambda t: ["labels", t / "none.csv", t / "wide.csv"],
    "labels: a folder as target": lambda t: ["labels", t / "good.csv", t],
    "labels: a target below a file": lambda t: ["labels", t / "good.csv", t / "file" / "wide.csv"],
    "an unknown option": lambda t: ["stack", "--out", t / "o", "--bogus"],
    "an unknown command": lambda _: ["frobnicate"],
    "a limit of 0": lambda t: ["index", "--out", t / "o", "--limit", "0"],
    "a huge limit": lambda t: ["index", "--out", t / "o", "--limit", "9" * 30],
    "a window of width 0": lambda t: ["png", t, "--out", t / "o", "--window", "40/0"],
    "a window without numbers": lambda t: ["png", t, "--out", t / "o", "--window", "nan/80"],
    "an endless window": lambda t: ["png", t, "--out", t / "o", "--window", "40/inf"],
    "two windows": lambda t: ["png", t, "--out", t / "o", "--window", "brain", "--window", "bone"],
    "a huge picture": lambda t: ["png", t, "--out", t / "o", "--size", "100000"],
    "a wrong device": lambda t: ["embed", "--out", t / "o", "device=nonsense"],
    "an empty series": lambda t: ["index", "--out", t / "o", "index.series=''"],
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_is_exit_2_says_why_and_writes_nothing(tmp_path: Path, case: str) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    rows = "".join(f"a_{c},0\n" for c in ("epidural", "intraparenchymal", "intraventricular"))
    rows += "".join(f"a_{c},0\n" for c in ("subarachnoid", "subdural", "any"))
    (tmp_path / "good.csv").write_text("ID,Label\n" + rows, encoding="utf-8")
    code, printed = command(*map(str, WRONG[case](tmp_path)))
    assert code == 2, printed
    assert "Traceback" not in printed
    assert printed.strip()
    assert {p.name for p in tmp_path.iterdir()} - {"o"} == {"file", "good.csv"}
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_series_that_no_slice_has_is_exit_2_and_one_that_is_there_is_read(
    data: Path, tmp_path: Path
) -> None:
    words = ["index", "--out", str(tmp_path / "run"), f"data.root={data}", "workers=1", "--series"]
    code, printed = command(*words, "ID_s9_series")
    assert code == 2, printed
    assert command(*words, "ID_s1_series")[0] == 0


def test_labels_without_any_are_refused_by_line_or_corrected_and_counted(data: Path, tmp_path: Path) -> None:
    lines = (data / "stage_2_train.csv").read_text(encoding="utf-8").splitlines()
    number = next(i for i, line in enumerate(lines) if line.endswith("_any,1"))
    lines[number] = lines[number][:-1] + "0"
    zero = next(i for i, line in enumerate(lines) if line.endswith("_any,0") and i > number)
    lines[zero] = lines[zero][:-1] + "1"
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(lines), encoding="utf-8")
    words = [
        "index",
        "--out",
        str(tmp_path / "run"),
        f"data.root={data}",
        f"data.labels={labels}",
        "workers=1",
    ]
    code, printed = command(*words)
    assert code == 2
    assert f"(line {number - 4})" in printed
    assert "index.fix_any=true" in printed
    code, printed = shell(f"$R {' '.join(words)} index.fix_any=true")
    assert code == 0, printed
    assert "1 slices had any = 0 and a class = 1; any was set to 1" in printed
    assert "1 slices have any = 1 and no class" in printed
    table = pl.read_parquet(tmp_path / "run" / "1_index" / "slices.parquet")
    assert table.filter(pl.col("slice") == lines[number].split("_any")[0])["any"].item() == 1


def _raise(error: BaseException) -> None:
    patient = "patient canary"
    assert patient
    raise error


def _raised(error: BaseException) -> BaseException:
    try:
        _raise(error)
    except BaseException as raised:
        return raised
    raise AssertionError("unreachable")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError("canary"), 5, "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: canary"), 5, "memory"),
        (IntegrityError("3_embed: damaged\x1b[2J"), 6, r"damaged\x1b"),
        (FileNotFoundError(2, "No such file or directory", "/no/where"), 2, "/no/where"),
        (NotADirectoryError(20, "Not a directory", b"/a/b"), 2, "/a/b"),
        (PermissionError(13, "Permission denied", "/data/x"), 5, "/data/x"),
        (OSError(28, "No space left on device"), 5, "No space left"),
        (OSError("canary: 5 requested and 0 written"), 5, "OSError"),
        (KeyError("canary"), 1, "KeyError"),
        (BaseException("canary"), 1, "issue tracker"),
    ],
)
def test_every_failure_is_one_plain_sentence_without_patient_data(
    error: BaseException,
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert failures.tell(_raised(error)) == code
    printed = capsys.readouterr().err
    assert words in printed
    assert "Traceback" not in printed
    written = "".join(f.read_text(encoding="utf-8") for f in tmp_path.iterdir())
    assert "canary" not in printed + written
    assert ("in _raise\n" in written) == ("issue tracker" in printed)


def test_the_whole_traceback_is_shown_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RSNA_SEQ_TRACEBACK", "1")
    failures.tell(_raised(ValueError("what was found")))
    assert "ValueError: what was found" in capsys.readouterr().err


_UP = (
    "print('up', flush=True); import runpy; runpy.run_module('rsna_seq', run_name='__main__', alter_sys=True)"
)
"""The command, after a line that says that Python itself has started (slow on a busy machine)."""


@pytest.mark.parametrize("wait", [0.4, 3.0])
def test_ctrl_c_ends_a_command_and_its_workers_without_a_traceback(tmp_path: Path, wait: float) -> None:
    words = ["synth", "--out", str(tmp_path), "synth.studies=40", "workers=2"]
    started = subprocess.Popen(
        [sys.executable, "-c", _UP, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENV,
        start_new_session=True,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "up\n"
    time.sleep(wait)
    os.killpg(started.pid, signal.SIGINT)
    printed, _ = started.communicate(timeout=30)
    # Python ends itself by the signal where Ctrl-C met code compiled from text; a shell says 130 to both
    assert started.returncode in {130, -signal.SIGINT}, printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("module", ["typer", "rsna_seq.terminal.paths"])
def test_ctrl_c_during_the_imports_ends_without_a_traceback(module: str) -> None:
    code = f"""
import runpy, sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
runpy.run_module("rsna_seq", run_name="__main__", alter_sys=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENV, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_every_file_follows_the_umask(data: Path, tmp_path: Path, umask: int) -> None:
    run = tmp_path / "run"
    tiny = ["workers=1", "cache.size=32", "index.holdout=0", f"data.root={data}"]
    phantoms = ["synth.studies=1", "synth.test_studies=0", "synth.matrix=64", "workers=1"]
    commands = [
        *([stage, "--out", str(run), *tiny] for stage in ("index", "cache")),
        ["png", str(data), "--out", str(tmp_path / "png"), "--limit", "1"],
        ["labels", str(data / "stage_2_train.csv"), str(tmp_path / "wide.csv")],
        ["synth", "--out", str(tmp_path / "synth"), *phantoms],
    ]
    before = os.umask(umask)
    try:
        assert [code for code, _ in (command(*words) for words in commands)] == [0] * 5
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    files = {p.suffix for p in tmp_path.rglob("*") if p.is_file()}
    assert {".parquet", ".npy", ".json", ".csv", ".png", ".dcm"} <= files


def test_a_library_that_makes_private_files_does_not_decide_the_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "weights.safetensors") as path:
            save_file({"a": np.zeros(2, dtype=np.float32)}, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights.safetensors").stat().st_mode) == 0o640
