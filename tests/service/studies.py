"""Studies for the service: small heads, damaged ones, and what the queue says of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from objects import write_whole
from pydicom import dcmread
from pynetdicom import AE

from rsna_seq.service.addresses import Address
from rsna_seq.service.jobs import Job
from rsna_seq.service.queue import QUEUE, Queue

QUICK = ["device=cpu", "service.stable_s=0.2", "service.poll_s=0.05", "service.retry_s=0.05"]
"""A study is complete after a fifth of a second."""
CUT = 2000
"""Bytes that the pixels of a damaged study lack; the files are valid otherwise, so that a PACS takes them."""


def write_head(folder: Path, number: int, *, damaged: bool = False) -> str:
    """Write a study of four slices, and return its StudyInstanceUID."""
    uid = f"1.2.826.0.7.{number}"
    less = {"PixelData": bytes(2 * 64 * 64 - CUT)} if damaged else {}
    write_whole(folder, uid, PatientID=f"P{number}", PatientName=f"Doe^Number{number}", **less)
    return uid


def jobs_of(out: Path) -> list[Job]:
    """The studies in the queue of a service, in the order of their arrival."""
    if not (out / QUEUE).is_file():
        return []
    queue = Queue(out / QUEUE)
    try:
        return queue.jobs(10_000)[::-1]
    finally:
        queue.close()


def states_of(out: Path) -> dict[str, list[str]]:
    """The states of each study."""
    found: dict[str, list[str]] = {}
    for job in jobs_of(out):
        found.setdefault(job.study, []).append(job.state.value)
    return found


def all_states(out: Path) -> set[str]:
    """Every state that a study is in."""
    return {job.state.value for job in jobs_of(out)}


def wait_for(what: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def send_all(to: Address, files: Sequence[Path]) -> list[int]:
    """Send CT images by C-STORE, and return the status of each."""
    entity = AE(ae_title="SENDER")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2")
    link = entity.associate(to.host, to.port, ae_title=to.aet)
    assert link.is_established
    try:
        return [int(link.send_c_store(dcmread(file)).Status) for file in files]
    finally:
        link.release()


def start(*words: object, **environment: str) -> subprocess.Popen[str]:
    """Start a command of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "rsna_seq", *map(str, words)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill(process: subprocess.Popen[str]) -> str:
    """End a process as a power failure would, and return what it said."""
    process.send_signal(signal.SIGKILL)
    return process.communicate(timeout=30)[0]
