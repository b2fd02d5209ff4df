"""Commands in processes of their own, under limits, and small studies to predict."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dicoms import write_slice


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


def write_study(folder: Path, study: str, patient: str = "ID_p", **elements: object) -> list[Path]:
    return [
        write_slice(folder, f"{study}_{k}", study=study, patient=patient, z=5.0 * k, **elements)
        for k in range(3)
    ]


def small_files(size: int) -> Callable[[], None]:
    """For ``preexec_fn``: no file of more than ``size`` bytes, as on a disk that is full."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit
