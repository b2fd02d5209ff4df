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
"""Error numbers caused by the environment, not by the input."""
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
    """Yield a temporary path beside ``path`` that replaces it if the block ends without an error.

    Args:
        path: The file, which is either complete or absent.
        sync: Wait until the file is on the disk, so that it survives a power failure.
        needed: Size of the file in bytes, if known: a full disk is then reported before anything is
            written.

    Raises:
        EnvironmentFaultError: The disk is full, no inodes are left, or the folder is not writable.
    """
    record = _RECORD.get()
    if record is not None:
        record(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)  # as set by the umask
        _must_fit(path, needed or 0)
        yield temporary
        temporary.chmod(mode)  # some libraries replace the file by one that only its owner can read
        if sync:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    except Exception as error:  # libraries raise their own types for operating system errors
        fault = disk_fault(error, path, needed)
        if fault is None:
            raise
        raise fault from error
    finally:
        temporary.unlink(missing_ok=True)


def _must_fit(path: Path, needed: int) -> None:
    """Raise the error of a full disk before anything is written."""
    if needed > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def disk_fault(error: BaseException, path: Path, needed: int | None = None) -> EnvironmentFaultError | None:
    """Return the error to raise if ``error`` means that the file cannot be written, otherwise None.

    Args:
        error: The exception that Python or a library raised while the file was written.
        path: The file.
        needed: Size of the file in bytes, if known.
    """
    if isinstance(error, EnvironmentFaultError):
        return None
    number = getattr(error, "errno", None)
    if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(found[1])
    if number not in _DISK:
        return None
    size = "" if needed is None else f" {needed:,} bytes are needed,"
    return EnvironmentFaultError(
        f"{path}: could not be written: {os.strerror(number)};{size} {_free(path)}. "
        "Free some space or choose another --out. No partial file is left"
    )


def _free(path: Path) -> str:
    """Describe the free bytes and inodes at the location of a file."""
    folder = next(p for p in path.absolute().parents if p.exists())
    found = os.statvfs(folder)
    return f"{found.f_bavail * found.f_frsize:,} bytes and {found.f_favail:,} inodes are free below {folder}"


def write_bytes(path: Path, data: bytes | memoryview, *, sync: bool = True) -> None:
    """Write a file atomically.

    Raises:
        EnvironmentFaultError: The file cannot be written.
    """
    with atomic_path(path, sync=sync, needed=len(data)) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write plain data as JSON atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def remove_parts(folder: Path, names: set[str]) -> None:
    """Remove temporary files that a killed process left beside the named files.

    Args:
        folder: Where the files are.
        names: Names of the files, without a folder.
    """
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        part = _PART.fullmatch(entry.name)
        if part and part[1] in names and entry.is_file(follow_symlinks=False):
            Path(entry.path).unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other runs; the lock ends with the process.

    Raises:
        IntegrityError: Another run has locked the folder.
        EnvironmentFaultError: The folder cannot be created or written to.
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
