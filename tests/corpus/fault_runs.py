"""Runs of seconds for the tests of faults, and commands in processes of their own."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import tiny_run

Cli = Callable[..., tuple[int, str]]
STAGES = ("index", "cache", "embed", "sequence", "stack", "evaluate")
TINY = [*tiny_run.TINY, "cache.shard_slices=12", "embed.epochs=2", "sequence.epochs=3"]


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
