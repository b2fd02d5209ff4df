"""What lies below a folder or in an archive, and its bytes; nothing is followed out of it.

1. :func:`list_files` walks a folder, or looks through a zip file, and sets aside what is never opened:
   links, pipes, names that are not UTF-8.
2. :func:`open_file` opens one file by its path, be it a file or a member of an archive.
"""

import hashlib
import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

from rsna_seq.imaging.archives import MARK, members, open_member
from rsna_seq.reasons import Action, Reason, SetAsideError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Listing:
    """Files below a place, sorted by name.

    Attributes:
        root: Folder that the names are relative to: the place itself, or the folder of an archive.
        names: Paths relative to ``root``; members of archives as ``archive.zip!/name``.
        sizes: Bytes of each.
        mtimes_ns: When each was last changed; of a member, its archive.
        aside: Rows of QUARANTINE: what is not opened.
    """

    root: Path
    names: list[str] = field(default_factory=list)
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    mtimes_ns: "array[int]" = field(default_factory=lambda: array("q"))
    aside: list[dict[str, object]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def parts(self, files: int) -> Iterator["Listing"]:
        """The listing cut into parts of so many files, without what was set aside."""
        for at in range(0, len(self), files):
            cut = slice(at, at + files)
            yield Listing(self.root, self.names[cut], self.sizes[cut], self.mtimes_ns[cut])

    def moved(self, root: Path) -> "Listing":
        """The same files with names relative to a folder above."""
        prefix = os.path.relpath(self.root, root) + "/"
        aside = [{**row, "file": prefix + str(row["file"])} for row in self.aside]
        return Listing(root, [prefix + name for name in self.names], self.sizes, self.mtimes_ns, aside)

    def read(self, at: int, read: Callable[..., Result], *options: object) -> Result:
        """Read one file, and refuse it where it is not what was listed.

        Args:
            at: Number of the file.
            read: Takes the path, then ``options``.
            options: What else ``read`` takes.

        Raises:
            SetAsideError: As ``read`` says, or the file changed.
        """
        path = os.path.join(self.root, self.names[at])  # noqa: PTH118
        try:
            return read(path, *options)
        finally:
            if MARK not in path:
                must_be(path, self.sizes[at], self.mtimes_ns[at])

    @property
    def digest(self) -> str:
        """Digest of names, sizes and times: what tells that a source file changed."""
        digest = hashlib.sha256()
        for name, size, mtime in zip(self.names, self.sizes, self.mtimes_ns, strict=True):
            digest.update(f"{name}\0{size}\0{mtime}\n".encode())
        for row in self.aside:
            digest.update(f"{row['file']}\0{row['reason']}\n".encode())
        return digest.hexdigest()


def list_files(place: Path) -> Listing:
    """Find every file below a folder, or in an archive.

    Args:
        place: A folder or a zip file.

    Raises:
        IntegrityError: An archive is refused.
    """
    root = place.parent if place.is_file() else place
    aside: list[dict[str, object]] = []
    if place.is_file():
        found = list(_archived(place, place.name, place.stat().st_mtime_ns, aside))
    else:
        found = list(_below(str(place), "", aside))
    found.sort()
    names, sizes, mtimes = [name for name, _, _ in found], array("q"), array("q")
    sizes.extend(size for _, size, _ in found)
    mtimes.extend(mtime for _, _, mtime in found)
    return Listing(root, names, sizes, mtimes, sorted(aside, key=lambda row: str(row["file"])))


def open_file(path: str) -> BinaryIO:
    """Open a file, or a member of an archive, for reading; no link is followed at its end.

    Raises:
        OSError: It cannot be opened.
    """
    if MARK in path:
        return open_member(path)
    return open(path, "rb")  # noqa: PTH123  (half the time of Path.open; the caller closes it)


def must_be(path: str, size: int, mtime_ns: int) -> None:
    """Refuse a file that is no longer what was listed.

    Raises:
        SetAsideError: Its size or time differs, or it is gone.
    """
    try:
        stat = os.lstat(path)
    except OSError as error:
        raise SetAsideError(Reason.UNREADABLE_FILE, type(error).__name__) from error
    must_be_same(stat, size, mtime_ns)


def must_be_same(stat: os.stat_result, size: int, mtime_ns: int) -> None:
    """Refuse the status of a file that is no longer what was listed.

    Raises:
        SetAsideError: Its size or time differs.
    """
    if (stat.st_size, stat.st_mtime_ns) != (size, mtime_ns):
        raise SetAsideError(Reason.FILE_CHANGED, f"{size:,} bytes as listed, {stat.st_size:,} now")


def digest_source(path: str) -> str | None:
    """SHA-256 of a file or a member of an archive; None where it cannot be read."""
    try:
        with open_file(path) as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except OSError:
        return None


def _below(folder: str, prefix: str, aside: list[dict[str, object]]) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of every file below a folder; strings, for there may be a million."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        aside.append(SetAsideError(Reason.UNREADABLE_FILE, type(error).__name__).row(prefix or "."))
        return
    for entry in entries:
        name = prefix + entry.name
        if not entry.name.isascii() and "\ufffd" in (shown := _shown(name)):
            aside.append(SetAsideError(Reason.BAD_NAME).row(shown))
        elif entry.is_symlink():
            aside.append(SetAsideError(Reason.LINK, action=Action.SKIPPED).row(name))
        elif entry.is_dir(follow_symlinks=False):
            yield from _below(entry.path, name + "/", aside)
        elif not entry.is_file(follow_symlinks=False):
            aside.append(SetAsideError(Reason.NOT_DICOM, "no regular file", action=Action.SKIPPED).row(name))
        elif entry.name.lower().endswith(".zip"):
            mtime = entry.stat(follow_symlinks=False).st_mtime_ns
            yield from _archived(Path(entry.path), name, mtime, aside)
        else:
            stat = entry.stat(follow_symlinks=False)
            yield name, stat.st_size, stat.st_mtime_ns


def _archived(
    archive: Path, name: str, mtime_ns: int, aside: list[dict[str, object]]
) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of every member of an archive."""
    try:
        for member in members(archive):
            yield f"{name}{MARK}{_shown(member.filename)}", member.file_size, mtime_ns
    except SetAsideError as error:
        aside.append(error.row(name))


def _shown(name: str) -> str:
    """A name as it may be stored and printed: bytes that are not UTF-8 are replaced."""
    return name.encode(errors="surrogateescape").decode(errors="replace")
