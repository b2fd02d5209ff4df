"""Every stage on a machine that fails: a full disk, no inodes, a read-only disk, signals, a clock in 2260.

``make faults`` walks them after the fault matrix. A full disk and a read-only one must end in exit code 5
without a partial file, a signal in its own code, and the same command afterwards in the bytes of a run that
nothing interrupted. In the year 2260 (Debian package ``faketime``) the bytes are the same at once; Python
does not start after 2262, when 64 bits of nanoseconds end.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from commands import small_files
from fault_matrix import RESULTS, STAGES, digests

_SIZES = (2_000, 20_000, 200_000)
"""Bytes after which a file cannot grow; each is changed a little from stage to stage."""


def command(
    stage: str, run: Path, data: Path, words: list[str], before: tuple[str, ...] = (), **about: object
) -> tuple[int, str]:
    """A stage in a process of its own, below the command ``before``: exit code and output."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "rsna_seq", stage, "--out", str(run), f"data.root={data}", *words],
        capture_output=True,
        text=True,
        check=False,
        **about,  # type: ignore[call-overload]
    )
    return done.returncode, done.stdout + done.stderr


def prepared(whole: Path, place: Path, stage: str) -> Path:
    """A copy of a finished run without the results of a stage and of those after it."""
    run = place / "run"
    shutil.copytree(whole, run)
    for later in STAGES[STAGES.index(stage) :]:
        shutil.rmtree(run / RESULTS[later])
    return run


@contextmanager
def mounted_at(place: Path, options: str = "size=1g") -> Iterator[bool]:
    """Mount a file system of its own; False if this user may not."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=False
    ).returncode
    try:
        yield mounted == 0
    finally:
        if mounted == 0:
            subprocess.run(["umount", str(place)], check=True)


def check(name: str, code: int, wanted: set[int], printed: str, run: Path) -> None:
    """Fail unless a command ended as it must, without a partial file."""
    parts = [p.name for p in run.rglob("*.part")]
    assert code in wanted, (name, code, printed[-800:])
    assert "Traceback" not in printed, (name, printed[-1500:])
    assert not parts or code < 0, (name, parts)
    print(f"{name}: exit {code}", flush=True)


def again(name: str, stage: str, run: Path, data: Path, words: list[str], whole: Path) -> None:
    """Run the same command without the fault: the bytes are those of the run that nothing interrupted."""
    code, printed = command(stage, run, data, words)
    assert code == 0, (name, printed[-800:])
    assert digests(run / RESULTS[stage]) == digests(whole / RESULTS[stage]), name
    assert not list(run.rglob("*.part")), name


def walk(whole: Path, data: Path, words: list[str]) -> int:
    """Walk every stage through every fault; how many there were."""
    random, count = np.random.default_rng(0), 0
    for stage in STAGES:
        with tempfile.TemporaryDirectory() as folder:
            run = prepared(whole, Path(folder), stage)
            for size in _SIZES:
                limit = int(size * random.uniform(0.7, 1.3))
                code, printed = command(stage, run, data, words, preexec_fn=small_files(limit))
                check(f"{stage}, files of at most {limit:,} bytes", code, {0, 5}, printed, run)
                count += 1
            again(f"{stage}, full disk", stage, run, data, words, whole)
        with tempfile.TemporaryDirectory() as folder:
            run = prepared(whole, Path(folder), stage)
            for blow, wanted in ((signal.SIGTERM, {143, 0}), (signal.SIGKILL, {-9, 0})):
                process = subprocess.Popen(
                    [sys.executable, "-m", "rsna_seq", stage, "--out", str(run), f"data.root={data}", *words],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                time.sleep(float(random.uniform(1.5, 4)))
                process.send_signal(blow)
                printed, _ = process.communicate(timeout=120)
                check(f"{stage}, {blow.name}", process.returncode, {*wanted, -15}, printed, run)
                count += 1
            again(f"{stage}, signals", stage, run, data, words, whole)
        count += _without_inodes(stage, whole, data, words)
        count += _read_only(stage, whole, data, words)
        count += _in_2260(stage, whole, data, words)
    return count


def _without_inodes(stage: str, whole: Path, data: Path, words: list[str]) -> int:
    """A stage on a file system whose inodes run out while it writes."""
    with tempfile.TemporaryDirectory() as folder:
        source = prepared(whole, Path(folder), stage)
        files = sum(1 for _ in source.rglob("*"))
        place = Path(folder) / "small"
        with mounted_at(place, f"size=1g,nr_inodes={files + 6}") as mounted:
            if not mounted or os.geteuid() != 0:
                print(f"{stage}, no inodes: skipped, a file system cannot be mounted here")
                return 0
            run = place / "run"
            shutil.copytree(source, run)
            code, printed = command(stage, run, data, words)
            check(f"{stage}, no inodes", code, {0, 5}, printed, run)
    return 1


def _read_only(stage: str, whole: Path, data: Path, words: list[str]) -> int:
    """A stage on a file system that is read-only, and the same command once it is not."""
    with tempfile.TemporaryDirectory() as folder:
        source, place = prepared(whole, Path(folder), stage), Path(folder) / "disk"
        with mounted_at(place) as mounted:
            if not mounted:
                print(f"{stage}, read-only: skipped, a file system cannot be mounted here")
                return 0
            run = place / "run"
            shutil.copytree(source, run)
            subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
            code, printed = command(stage, run, data, words)
            check(f"{stage}, read-only", code, {5}, printed, run)
            subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
            again(f"{stage}, read-only", stage, run, data, words, whole)
    return 1


def _in_2260(stage: str, whole: Path, data: Path, words: list[str]) -> int:
    """A stage on a machine whose clock is set to the year 2260."""
    if shutil.which("faketime") is None:
        print(f"{stage}, clock in 2260: skipped, the Debian package faketime is not installed")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        run = prepared(whole, Path(folder), stage)
        code, printed = command(stage, run, data, words, ("faketime", "2260-01-01 12:00:00"))
        check(f"{stage}, clock in 2260", code, {0}, printed, run)
        assert digests(run / RESULTS[stage]) == digests(whole / RESULTS[stage]), f"{stage} in 2260"
    return 1
