"""Atomic writes, folder locks, and the message for a disk that is full or read-only."""

import errno
import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from rsna_seq.errors import EnvironmentFaultError, IntegrityError

LOCK = ".lock"
_PART = re.compile(r"\.(.+)\.\d+\.part")
_DISK = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
"""Error numbers for which the machine is at fault, and not the input."""
_RECORD: ContextVar[Callable[[Path], None] | None] = ContextVar("record", default=None)


@contextmanager
def recording(record: Callable[[Path], None]) -> Iterator[None]:
    """Pass each path that :func:`atomic_path` writes in this block to ``record``, before it is written."""
    token = _RECORD.set(record)
    try:
        yield
    finally:
        _RECORD.reset(token)


@contextmanager
def atomic_path(path: Path, *, sync: bool = True, needed: int | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that replaces it when the block ends without an error.

    Args:
        path: The file that is to be complete or absent.
        sync: Wait until it is on the disk, so that it survives a power cut.
        needed: Bytes that it will take, where that is known: a disk that is too small is then reported
            before anything is written.

    Raises:
        EnvironmentFaultError: The disk or its inodes are full, or the folder is not writable.
    """
    record = _RECORD.get()
    if record is not None:
        record(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)  # as the umask says
        _must_fit(path, needed or 0)
        yield temporary
        temporary.chmod(mode)  # some libraries replace the file by one that only its owner may read
        if sync:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    except Exception as error:  # libraries wrap the operating system's error in types of their own
        fault = disk_fault(error, path, needed)
        if fault is None:
            raise
        raise fault from error
    finally:
        temporary.unlink(missing_ok=True)


def _must_fit(path: Path, needed: int) -> None:
    """Raise the error of a full disk before anything is written to it."""
    if needed > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def disk_fault(error: BaseException, path: Path, needed: int | None = None) -> EnvironmentFaultError | None:
    """The error to raise where ``error`` says that the disk cannot take a file, otherwise None.

    Args:
        error: What was raised while the file was written, by Python or by a library.
        path: The file.
        needed: Bytes that it takes, where that is known.
    """
    if isinstance(error, EnvironmentFaultError):
        return None
    number = getattr(error, "errno", None)
    if number is None and (told := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(told[1])
    if number not in _DISK:
        return None
    size = "" if needed is None else f" {needed:,} bytes are needed,"
    return EnvironmentFaultError(
        f"{path}: could not be written: {os.strerror(number)};{size} {_free(path)}. "
        "Free some space or choose another --out. No partial file is left"
    )


def _free(path: Path) -> str:
    """Bytes and inodes that are free where a file was to be written."""
    folder = next(p for p in path.absolute().parents if p.exists())
    found = os.statvfs(folder)
    return f"{found.f_bavail * found.f_frsize:,} bytes and {found.f_favail:,} inodes are free below {folder}"


def write_bytes(path: Path, data: bytes | memoryview, *, sync: bool = True) -> None:
    """Write a file, complete or not at all.

    Raises:
        EnvironmentFaultError: The disk cannot take it.
    """
    with atomic_path(path, sync=sync, needed=len(data)) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, complete or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write plain data as JSON, complete or not at all."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def remove_parts(folder: Path, names: set[str]) -> None:
    """Remove temporary files that a killed process left beside files of these names.

    Args:
        folder: Where the files are.
        names: Names of the files themselves, without a folder.
    """
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        part = _PART.fullmatch(entry.name)
        if part and part[1] in names and entry.is_file(follow_symlinks=False):
            Path(entry.path).unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other runs; the lock ends with the process.

    Raises:
        IntegrityError: Another run holds it.
        EnvironmentFaultError: The folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / LOCK).open("w")
    except OSError as error:
        fault = disk_fault(error, folder / LOCK)
        if fault is None:
            raise
        raise fault from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise IntegrityError(
                f"{folder}: another run is writing here; wait for it, or choose another --out"
            ) from error
        yield
