"""Functions that a spawned process finds: one that dies, one that tells how it was started."""

import os
import signal
import sys
from pathlib import Path


def die_at_three(item: int) -> int:
    """Double a number, and die on 3, always."""
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item


def die_once(job: tuple[int, str]) -> int:
    """Double a number; the first process that meets 2 dies, the next one does not."""
    item, folder = job
    mark = Path(folder) / "died"
    if item == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item


def how_started(_item: int) -> str:
    """The command line of this process."""
    return " ".join(sys.orig_argv)
