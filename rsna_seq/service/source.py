"""What all sources of studies have in common: the interface, and the folder that receives instances."""

import os
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from rsna_seq.config import ServiceConfig
from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.imaging.sources import open_file
from rsna_seq.reasons import ExclusionError
from rsna_seq.service.jobs import digest_of
from rsna_seq.service.queue import Arrived, Mark, Queue
from rsna_seq.store.files import disk_fault

RECEIVED = "received"
"""Folder below the service's folder for instances that were uploaded, retrieved or received."""
_BLOCK = 1 << 20
_DAY_S = 86_400.0


class TooLargeError(Exception):
    """A study or an upload exceeds a limit; the message names the limit."""


class Source(Protocol):
    """Where studies come from."""

    def poll(self) -> bool:
        """Look for changes once, and put studies that are complete into the queue.

        Returns:
            Whether instances are still arriving, or complete studies are not yet in the queue.

        Raises:
            SourceError: The source cannot be reached now; the next look may succeed.
        """

    def close(self) -> None:
        """Stop."""


class SourceError(Exception):
    """A source cannot be reached; the message names no credentials."""


class Inbox:
    """The folder for received instances, one subfolder per delivery, with limits.

    Args:
        out: The folder of the service.
        cfg: Limits.
    """

    def __init__(self, out: Path, cfg: ServiceConfig) -> None:
        self.folder, self.cfg = out / RECEIVED, cfg

    def new(self) -> Path:
        """Make an empty folder for one delivery; nobody else can read it."""
        made = self.folder / uuid.uuid4().hex
        made.mkdir(parents=True, mode=0o700)
        return made

    def copy(self, files: Iterable[str], folder: Path) -> list[Path]:
        """Copy instances into a folder, with numbers as names; of a damaged one, what can be read.

        Args:
            files: Paths of files or of archive members.
            folder: The folder.

        Returns:
            The copies.

        Raises:
            TooLargeError: There are more files or bytes than a study may have.
            EnvironmentFaultError: The disk is full.
        """
        made: list[Path] = []
        left = self.cfg.max_upload_mb * 1_000_000
        for file in files:
            if len(made) >= self.cfg.max_files:
                raise TooLargeError(f"more than {self.cfg.max_files:,} files (service.max_files)")
            made.append(folder / f"{len(made):06d}.dcm")
            with made[-1].open("wb") as target, suppress(ExclusionError), open_file(file) as source:
                left = self._write(source, target, made[-1], left)
        return made

    def _write(self, source: BinaryIO, target: BinaryIO, path: Path, left: int) -> int:
        """Copy one file of at most ``left`` bytes; how many are left then."""
        while block := source.read(_BLOCK):
            left -= len(block)
            if left < 0:
                limit = f"{self.cfg.max_upload_mb:,} MB (service.max_upload_mb)"
                raise TooLargeError(f"more than {limit}")
            try:
                target.write(block)
            except OSError as error:
                raise disk_fault(error, path) or error from error
        return left

    def sync(self, files: Sequence[Path]) -> None:
        """Wait until received files are on the disk, so that they survive a power failure."""
        for path in (*files, *{file.parent for file in files}, self.folder):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def clear(self, queue: Queue) -> None:
        """Delete deliveries older than a day that no study needs: a killed process has left them.

        Args:
            queue: The queue.
        """
        if not self.folder.is_dir():
            return
        needed, old = queue.folders(), time.time() - _DAY_S
        for entry in os.scandir(self.folder):
            if Path(entry.path) in needed or not _is_delivery(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False) and entry.stat().st_mtime < old:
                shutil.rmtree(entry.path, ignore_errors=True)


def put(
    queue: Queue,
    arrived: Arrived,
    inbox: Inbox,
    folder: Path,
    files: Sequence[Path],
    mark: Mark | None = None,
) -> tuple[int, bool]:
    """Put a study whose instances were received into the queue; delete them if they were answered before.

    Args:
        queue: The queue.
        arrived: Source, key and StudyInstanceUID.
        inbox: Where its instances are.
        folder: Its folder in the inbox.
        files: Its instances.
        mark: As in :meth:`rsna_seq.service.queue.Queue.complete`.

    Returns:
        The number under which the study is kept, and whether it will be scored now.
    """
    inbox.sync(files)
    kept, fresh = queue.complete(arrived, digest_of(files), [folder], folder=folder, mark=mark)
    if not fresh:
        shutil.rmtree(folder, ignore_errors=True)
    return kept, fresh


def must_have_room(folder: Path, free_mb: int = 500) -> None:
    """Refuse instances while the disk is nearly full.

    Args:
        folder: Any folder on the disk.
        free_mb: What must remain free, in MB.

    Raises:
        EnvironmentFaultError: Less is free.
    """
    free = shutil.disk_usage(folder).free
    if free < free_mb * 1_000_000:
        raise EnvironmentFaultError(f"{folder}: only {free / 1e6:,.0f} MB are free; free some space")


def _is_delivery(name: str) -> bool:
    return len(name) == 32 and all(c in "0123456789abcdef" for c in name)
