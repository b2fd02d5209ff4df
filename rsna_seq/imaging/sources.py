"""List and read input files below folders and in archives; links out of them are never followed.

All other modules read input files through the functions of this one:

1. :func:`list_files` lists folders, zip files and single files with their sizes and times, and quarantines
   entries that are never opened: links, pipes, names that are not UTF-8.
2. :func:`open_file` opens a file or an archive member by its path, :func:`read_range` reads some bytes of it.
3. :func:`must_be` and :func:`must_be_same` refuse a file that changed since it was listed.
"""

import hashlib
import os
import stat
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from rsna_seq.errors import UsageError
from rsna_seq.imaging.archives import MARK, is_archive, member_of, member_status, open_member
from rsna_seq.imaging.folders import (
    Found,
    Rows,
    escaped,
    files_below,
    files_in_archive,
    is_bad_name,
    must_have_time,
    words_of,
)
from rsna_seq.imaging.reading import Status, open_path, read_at, read_starts, status_of
from rsna_seq.imaging.zip_files import Member
from rsna_seq.reasons import ExclusionError, Reason

Result = TypeVar("Result")


@dataclass(frozen=True)
class Listing:
    """Files of the inputs, sorted by name.

    Attributes:
        root: Folder that the names are relative to: the input folder, or the folder of an input file; for
            several inputs the deepest folder that contains all of them.
        names: Paths relative to ``root``; ``archive.zip!/name`` for members of archives.
        sizes: Size of each in bytes.
        mtimes_ns: Modification time of each; for a member that of its archive.
        aside: Rows of QUARANTINE for entries that are not opened.
    """

    root: Path
    names: list[str] = field(default_factory=list)
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    mtimes_ns: "array[int]" = field(default_factory=lambda: array("q"))
    aside: Rows = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def parts(self, files: int) -> Iterator["Listing"]:
        """Yield the listing in batches of files, without the quarantined entries."""
        for at in range(0, len(self), files):
            cut = slice(at, at + files)
            yield Listing(self.root, self.names[cut], self.sizes[cut], self.mtimes_ns[cut])

    def moved(self, root: Path) -> "Listing":
        """Return the same files with names relative to a parent folder."""
        way = os.path.relpath(self.root, root)
        prefix = "" if way == os.curdir else way + "/"
        aside = [{**row, "file": escaped(prefix) + str(row["file"])} for row in self.aside]
        if is_bad_name(prefix):
            aside += [ExclusionError(Reason.BAD_NAME).row(escaped(prefix + name)) for name in self.names]
            return Listing(root, aside=aside)
        return Listing(root, [prefix + name for name in self.names], self.sizes, self.mtimes_ns, aside)

    def read(self, at: int, read: Callable[..., Result], *options: object) -> Result:
        """Read one file; refuse it if it changed since it was listed.

        Args:
            at: Index of the file.
            read: Function of the path and ``options``.
            options: Further arguments of ``read``.

        Raises:
            ExclusionError: Raised by ``read``, or the file changed.
        """
        path = os.path.join(self.root, self.names[at])  # noqa: PTH118
        try:
            return read(path, *options)
        finally:
            must_be(path, self.sizes[at], self.mtimes_ns[at])

    @property
    def digest(self) -> str:
        """Digest of names, sizes and times, to detect changed input files."""
        digest = hashlib.sha256()
        for name, size, mtime in zip(self.names, self.sizes, self.mtimes_ns, strict=True):
            digest.update(f"{name}\0{size}\0{mtime}\n".encode())
        for row in self.aside:
            digest.update(f"{row['file']}\0{row['reason']}\n".encode())
        return digest.hexdigest()


def list_files(*places: Path) -> Listing:
    """List every file below folders or in archives, each file once.

    A folder that is given twice, or is inside another one (by resolved paths), is listed once.

    Args:
        places: Folders, zip files, or single files.

    Returns:
        The files; for several inputs with names relative to the deepest folder that contains all of them.

    Raises:
        UsageError: An input does not exist, or no input is given.
        IntegrityError: An archive is refused.
    """
    outer = _outermost(places)
    if len(outer) == 1:
        return _list_one(outer[0])
    listings = [_list_one(place.resolve()) for place in outer]
    root = Path(os.path.commonpath([each.root for each in listings]))
    found: dict[str, Found] = {}
    aside: dict[tuple[object, object], dict[str, object]] = {}
    for each in (listing.moved(root) for listing in listings):
        found |= {file[0]: file for file in zip(each.names, each.sizes, each.mtimes_ns, strict=True)}
        aside |= {(row["file"], row["reason"]): row for row in each.aside}
    return _listing(root, list(found.values()), list(aside.values()))


def root_of(place: Path) -> Path:
    """Folder that file names are relative to: the folder itself, or the folder of a file."""
    return place.resolve().parent if place.is_file() else place


def must_exist(place: Path, name: str = "input") -> None:
    """Refuse an input that does not exist, before any work starts.

    Args:
        place: A folder or a file.
        name: Name for messages, such as a config key.

    Raises:
        UsageError: The input does not exist, is not accessible, or is neither a folder nor a file.
    """
    try:
        mode = place.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"{name}: {place} does not exist; give a folder, a zip file or a DICOM file"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: {place} cannot be opened: {words_of(error)}") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise UsageError(f"{name}: {place} is neither a folder nor a file")


def open_file(path: str) -> BinaryIO:
    """Open a file or an archive member for reading; the path must not be a link.

    Raises:
        OSError: The file cannot be opened.
        ExclusionError: The archive or its member cannot be read; also raised while the member is read.
    """
    parts = member_of(path)
    if parts is not None:
        return cast(BinaryIO, open_member(*parts))
    return open_path(path)


def read_range(path: str, offset: int, buffer: Any) -> tuple[int, Status]:
    """Read a range of bytes of a file or an archive member into a buffer.

    Args:
        path: The file or member; a link is refused.
        offset: First byte.
        buffer: Contiguous memory; as many bytes are read as it has and the file contains.

    Returns:
        Number of bytes read, and status of the file after reading.

    Raises:
        OSError: The file cannot be read.
        ExclusionError: The archive or its member cannot be read.
    """
    if MARK in path and (parts := member_of(path)) is not None:
        with open_member(*parts) as file:
            file.seek(offset)
            return file.readinto(buffer), Status(file.size, file.mtime_ns)
    return read_at(path, offset, buffer)


def read_first(paths: Sequence[str], buffers: Sequence[Any]) -> list[tuple[int, int] | None]:
    """Read the first bytes of many files or archive members, each into its buffer, as ``read_starts`` does.

    Returns:
        Size in bytes and modification time in ns of each after reading; None where it cannot be read.
    """
    found = read_starts(paths, buffers)
    for i, path in enumerate(paths):
        if found[i] is None and MARK in path:
            with suppress(OSError, ExclusionError):
                found[i] = read_range(path, 0, buffers[i])[1]
    return found


def verify(file: BinaryIO) -> None:
    """Compare length and checksum of an open archive member; other files have no checksum.

    Raises:
        ExclusionError: The member is damaged.
    """
    if isinstance(file, Member):
        file.verify()


def must_be(path: str, size: int, mtime_ns: int) -> None:
    """Refuse a file or archive member that changed since it was listed.

    Raises:
        ExclusionError: The size or modification time differs, or the file no longer exists.
    """
    parts = member_of(path)
    try:
        status = status_of(path) if parts is None else member_status(*parts)
    except OSError as error:
        raise ExclusionError(Reason.UNREADABLE_FILE, words_of(error)) from error
    must_be_same(status, size, mtime_ns)


def must_be_same(status: Status, size: int, mtime_ns: int) -> None:
    """Refuse a file whose status changed since it was listed.

    Raises:
        ExclusionError: The size or modification time differs.
    """
    if status != (size, mtime_ns):
        detail = f"{size:,} bytes when listed, {status.size:,} bytes now"
        raise ExclusionError(Reason.FILE_CHANGED, detail)


def digest_source(path: str) -> str | None:
    """SHA-256 of a file or archive member; None if it cannot be read."""
    try:
        with open_file(path) as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except (OSError, ExclusionError):
        return None


def _outermost(places: Sequence[Path]) -> list[Path]:
    """Inputs without duplicates and without folders inside other inputs."""
    for place in places:
        must_exist(place)
    if not places:
        raise UsageError("no input is given; give a folder, a zip file or a DICOM file")
    resolved = {place.resolve(): place for place in reversed(places)}
    return [
        place
        for path, place in reversed(resolved.items())
        if not (path.is_dir() and any(above in resolved for above in path.parents))
    ]


def _list_one(place: Path) -> Listing:
    """List the files of one existing input."""
    aside: Rows = []
    if not place.is_file():
        return _listing(place, files_below(str(place), aside), aside)
    file = place.resolve()
    if is_bad_name(file.name):
        return _listing(file.parent, [], [ExclusionError(Reason.BAD_NAME).row(escaped(file.name))])
    try:
        if is_archive(str(file)):
            return _listing(file.parent, files_in_archive(str(file), file.name, aside), aside)
        status = file.stat()
        must_have_time(status.st_mtime_ns)
    except ExclusionError as error:
        return _listing(file.parent, [], [error.row(file.name)])
    except OSError as error:
        row = ExclusionError(Reason.UNREADABLE_FILE, words_of(error)).row(file.name)
        return _listing(file.parent, [], [row])
    return _listing(file.parent, [(file.name, status.st_size, status.st_mtime_ns)], aside)


def _listing(root: Path, found: list[Found], aside: Rows) -> Listing:
    found.sort()
    sizes, mtimes = array("q"), array("q")
    sizes.extend(size for _, size, _ in found)
    mtimes.extend(mtime for _, _, mtime in found)
    names = [name for name, _, _ in found]
    return Listing(root, names, sizes, mtimes, sorted(aside, key=lambda row: str(row["file"])))
