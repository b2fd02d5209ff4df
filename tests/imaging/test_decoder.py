"""The decoding process: its limits, requests, replies, and its end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "corpus"))
from transfer_syntaxes import SYNTAXES, write_encoded

from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.imaging import codec_process
from rsna_seq.imaging.decoder import Decoder
from rsna_seq.reasons import ExclusionError, Reason

SHAPE = (64, 64)
_SERVE = "c.serve(int(sys.argv[1]))"
_CODE = (
    "import sys, os, time; sys.path[:] = sys.argv[2:]; "
    f"from rsna_seq.imaging import codec_server as c; {_SERVE}"
)
_FAKE = "s = c._take_connection(); c._send_text(s, c.Status.READY, ''); c._receive(s, c.REQUEST.size); "
Made = Callable[..., Decoder]


@pytest.fixture
def made() -> Iterator[Made]:
    """Makes decoders, and ends them."""
    decoders: list[Decoder] = []

    def make(**limits: float) -> Decoder:
        decoders.append(Decoder(**limits))  # type: ignore[arg-type]
        return decoders[-1]

    yield make
    for decoder in decoders:
        decoder.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, np.ndarray]]:
    """Compressed slices, and their stored values."""
    made, folder = [], tmp_path_factory.mktemp("files")
    for i, name in enumerate(("jpeg_2000", "jpeg_lossless", "jpeg_ls", "htj2k", "rle")):
        hu = np.random.default_rng(i).integers(-1000, 2000, SHAPE)
        made.append((str(write_encoded(folder, f"ID_{i}", SYNTAXES[name], hu=hu)), hu + 1024))
    return made


def _runs_instead(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let the process run other code before, or in place of, serving."""
    monkeypatch.setattr(codec_process, "_CODE", _CODE.replace(_SERVE, code))


def _gone(pid: int) -> bool:
    """Whether a process ended within some seconds, and was waited for."""
    for _ in range(300):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return True
        if state == "Z" and os.getpid() != _parent_of(pid):
            return True  # an orphan that the machine's first process has yet to wait for
        time.sleep(0.05)
    return False


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[1])


def test_values_are_pydicoms_in_new_memory_and_in_given_memory(
    files: list[tuple[str, np.ndarray]], made: Made
) -> None:
    decoder = made()
    for path, values in files:
        np.testing.assert_array_equal(decoder.decode(path, 0, SHAPE), values)
        out = np.zeros(SHAPE, dtype=np.int16)
        got = decoder.decode(path, 0, SHAPE, out)
        assert np.shares_memory(got, out)
        np.testing.assert_array_equal(got, values)


def test_the_time_to_start_is_not_the_files(
    files: list[tuple[str, np.ndarray]], made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    _runs_instead(monkeypatch, f"time.sleep(2.5); {_SERVE}")
    path, values = files[0]
    np.testing.assert_array_equal(made(patience_s=2, wall_s=2).decode(path, 0, SHAPE), values)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("time.sleep(60)", "not ready after 0.5 s"),
        ("os._exit(7)", "exit code 7"),
        ("os.kill(os.getpid(), 9)", "signal 9"),
        ("sys.modules['pydicom.pixels'] = None; " + _SERVE, "ModuleNotFoundError"),
    ],
)
def test_a_process_that_cannot_start_is_the_machines_fault(
    files: list[tuple[str, np.ndarray]], made: Made, monkeypatch: pytest.MonkeyPatch, code: str, why: str
) -> None:
    _runs_instead(monkeypatch, code)
    decoder = made(start_s=0.5 if "sleep" in code else 60)
    with pytest.raises(EnvironmentFaultError, match=f"{why}.*no input file is the cause"):
        decoder.decode(files[0][0], 0, SHAPE)
    assert decoder.pid is None


def test_an_interpreter_that_is_gone_is_the_machines_fault(
    files: list[tuple[str, np.ndarray]], made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(EnvironmentFaultError, match="/no/such/python"):
        made().decode(files[0][0], 0, SHAPE)


@pytest.mark.parametrize(
    "answer",
    [
        "os.urandom(10_000)",
        "b'\\x80\\x04' + b'c' * 100",
        "c.REPLY.pack(c.MAGIC, 2, 0, 64, 64, 1 << 60)",
        "c.REPLY.pack(c.MAGIC, 2, 0, 1 << 31, 1 << 31, 1 << 63)",
        "c.REPLY.pack(c.MAGIC, 2, 200, 64, 64, 8192)",
        "c.REPLY.pack(c.MAGIC, 2, 0, 32, 128, 8192)",
        "c.REPLY.pack(c.MAGIC, 77, 0, 64, 64, 8192)",
        "c.REPLY.pack(c.MAGIC, 2, 0, 64, 64, 8192) + bytes(8000)",
        "c.REPLY.pack(c.MAGIC, 3, 0, 0, 0, 1 << 62) + bytes(100)",
    ],
)
def test_an_answer_that_was_not_asked_for_is_refused(
    files: list[tuple[str, np.ndarray]], made: Made, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    _runs_instead(monkeypatch, f"{_FAKE} s.sendall({answer}); s.close()")
    with pytest.raises(ExclusionError) as error:
        made().decode(files[0][0], 0, SHAPE)
    assert error.value.reason == Reason.WORKER_DIED


def test_what_a_codec_prints_harms_nothing(
    files: list[tuple[str, np.ndarray]],
    made: Made,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    talks = "d = c._decoded; c._decoded = lambda *a: (os.write(1, b'talk'), os.write(2, b'talk'), d(*a))[2]"
    _runs_instead(monkeypatch, f"{talks}; {_SERVE}")
    path, values = files[0]
    np.testing.assert_array_equal(made().decode(path, 0, SHAPE), values)
    assert capfd.readouterr() == ("", "")


def test_the_process_inherits_neither_secrets_nor_ignored_signals(
    files: list[tuple[str, np.ndarray]], made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "sitecustomize.py").write_text("raise SystemExit(3)", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.setenv("A_SECRET", "canary")
    before = signal.signal(signal.SIGPROF, signal.SIG_IGN)
    try:
        decoder = made(patience_s=1e-6)
        noise = np.random.default_rng(0).integers(-1000, 1000, (512, 512))
        large = str(write_encoded(tmp_path, "ID_large", SYNTAXES["jpeg_2000"], hu=noise))
        with pytest.raises(ExclusionError, match="CPU time, twice"):
            decoder.decode(large, 0, (512, 512))
        decoder.patience_s = 20
        decoder.decode(files[0][0], 0, SHAPE)
    finally:
        signal.signal(signal.SIGPROF, before)
    variables = Path(f"/proc/{decoder.pid}/environ").read_bytes()
    assert b"canary" not in variables
    assert b"PYTHONPATH" not in variables


def test_a_relative_path_is_of_the_folder_of_the_moment(
    files: list[tuple[str, np.ndarray]], made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    decoder = made()
    for path, values in files[:2]:
        monkeypatch.chdir(Path(path).parent)
        np.testing.assert_array_equal(decoder.decode(Path(path).name, 0, SHAPE), values)


def test_threads_share_a_process(files: list[tuple[str, np.ndarray]], made: Made) -> None:
    decoder = made()
    with ThreadPoolExecutor(4) as pool:
        decoded = pool.map(lambda one: (decoder.decode(one[0], 0, SHAPE), one[1], decoder.pid), files * 8)
        pids = set()
        for got, values, pid in decoded:
            np.testing.assert_array_equal(got, values)
            pids.add(pid)
    assert len(pids) == 1


def test_a_forked_process_has_one_of_its_own(files: list[tuple[str, np.ndarray]], made: Made) -> None:
    decoder = made()
    path, values = files[0]
    decoder.decode(path, 0, SHAPE)
    mine = decoder.pid
    with decoder._lock:  # as where another thread decodes at that moment
        child = os.fork()
        if child == 0:
            ok = np.array_equal(decoder.decode(path, 0, SHAPE), values) and decoder.pid not in {None, mine}
            decoder.close()
            os._exit(0 if ok else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    np.testing.assert_array_equal(decoder.decode(path, 0, SHAPE), values)
    assert decoder.pid == mine


def test_a_closed_decoder_leaves_no_process_and_begins_again(
    files: list[tuple[str, np.ndarray]], made: Made
) -> None:
    decoder = made()
    path, values = files[0]
    for _ in range(2):
        np.testing.assert_array_equal(decoder.decode(path, 0, SHAPE), values)
        pid = decoder.pid
        assert pid is not None
        decoder.close()
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # neither running nor a zombie


def test_an_interrupted_answer_is_not_taken_for_the_next_one(
    files: list[tuple[str, np.ndarray]], made: Made, tmp_path: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    decoder = made()
    path, values = files[1]
    decoder.decode(files[0][0], 0, SHAPE)
    os.mkfifo(tmp_path / "fifo")
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            decoder.decode(str(tmp_path / "fifo"), 0, SHAPE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    np.testing.assert_array_equal(decoder.decode(path, 0, SHAPE), values)


def test_the_process_ends_with_a_parent_that_is_killed(files: list[tuple[str, np.ndarray]]) -> None:
    code = (
        "import os, sys, time\n"
        "from rsna_seq.imaging.decoder import shared_decoder\n"
        f"shared_decoder().decode({files[0][0]!r}, 0, {SHAPE})\n"
        "if os.fork() == 0: time.sleep(30)\n"  # a forked process that lives on must not keep it
        "print(shared_decoder().pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert _parent_of(pid) == parent.pid
        parent.kill()
        try:
            assert _gone(pid)
        finally:
            os.killpg(parent.pid, signal.SIGKILL)
