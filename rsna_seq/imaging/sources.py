"""What lies below some folders or in archives, and its bytes; nothing is followed out of them.

1. :func:`list_files` walks folders, looks through zip files, or takes single files, and quarantines what is
   never opened: links, pipes, names that are not UTF-8.
2. :func:`open_file` opens one file by its path, be it a file or a member of an archive.
"""

import hashlib
import os
import stat
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from rsna_seq.errors import UsageError
from rsna_seq.imaging.archives import is_archive, member_of, member_status, open_member
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
from rsna_seq.imaging.zip_files import Member
from rsna_seq.reasons import ExclusionError, Reason

Result = TypeVar("Result")


@dataclass(frozen=True)
class Listing:
    """Files below a place, sorted by name.

    Attributes:
        root: Folder that the names are relative to: the place itself, or the folder of a file; of several
            places the deepest folder that holds them all.
        names: Paths relative to ``root``; members of archives as ``archive.zip!/name``.
        sizes: Bytes of each.
        mtimes_ns: When each was last changed; of a member, its archive.
        aside: Rows of QUARANTINE: what is not opened.
    """

    root: Path
    names: list[str] = field(default_factory=list)
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    mtimes_ns: "array[int]" = field(default_factory=lambda: array("q"))
    aside: Rows = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def parts(self, files: int) -> Iterator["Listing"]:
        """The listing cut into parts of so many files, without what was set aside."""
        for at in range(0, len(self), files):
            cut = slice(at, at + files)
            yield Listing(self.root, self.names[cut], self.sizes[cut], self.mtimes_ns[cut])

    def moved(self, root: Path) -> "Listing":
        """The same files with names relative to a folder above."""
        way = os.path.relpath(self.root, root)
        prefix = "" if way == os.curdir else way + "/"
        aside = [{**row, "file": escaped(prefix) + str(row["file"])} for row in self.aside]
        if is_bad_name(prefix):
            aside += [ExclusionError(Reason.BAD_NAME).row(escaped(prefix + name)) for name in self.names]
            return Listing(root, aside=aside)
        return Listing(root, [prefix + name for name in self.names], self.sizes, self.mtimes_ns, aside)

    def read(self, at: int, read: Callable[..., Result], *options: object) -> Result:
        """Read one file, and refuse it where it is not what was listed.

        Args:
            at: Number of the file.
            read: Takes the path, then ``options``.
            options: What else ``read`` takes.

        Raises:
            ExclusionError: As ``read`` says, or the file changed.
        """
        path = os.path.join(self.root, self.names[at])  # noqa: PTH118
        try:
            return read(path, *options)
        finally:
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


def list_files(*places: Path) -> Listing:
    """Find every file below some folders or in some archives, each file once.

    The same folder twice, or a folder within another, by their resolved paths, is listed once.

    Args:
        places: Folders, zip files, or single files.

    Returns:
        The files; of several places with names relative to the deepest folder that holds them all.

    Raises:
        UsageError: A place does not exist, or there is none.
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
    """The folder that the names of a place's files are relative to: itself, or the folder of a file."""
    return place.resolve().parent if place.is_file() else place


def must_exist(place: Path, name: str = "input") -> None:
    """Refuse an input that is not there, before anything is done.

    Args:
        place: A folder or a file.
        name: What the user knows it by, such as a key of the config.

    Raises:
        UsageError: It does not exist, cannot be looked at, or is neither a folder nor a file.
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
    """Open a file, or a member of an archive, for reading; no link is followed at its end.

    Raises:
        OSError: It cannot be opened.
        ExclusionError: The archive or its member cannot be read; also while the member is read.
    """
    parts = member_of(path)
    if parts is not None:
        return cast(BinaryIO, open_member(*parts))
    return open(path, "rb")  # noqa: PTH123  (half the time of Path.open; the caller closes it)


def verify(file: BinaryIO) -> None:
    """Compare the length and checksum of an archive's member that is open; other files have none.

    Raises:
        ExclusionError: The member is damaged.
    """
    if isinstance(file, Member):
        file.verify()


def must_be(path: str, size: int, mtime_ns: int) -> None:
    """Refuse a file, or a member of an archive, that is no longer what was listed.

    Raises:
        ExclusionError: Its size or time differs, or it is gone.
    """
    parts = member_of(path)
    if parts is not None:
        _must_equal(*member_status(*parts), size, mtime_ns)
        return
    try:
        status = os.lstat(path)
    except OSError as error:
        raise ExclusionError(Reason.UNREADABLE_FILE, words_of(error)) from error
    must_be_same(status, size, mtime_ns)


def must_be_same(status: os.stat_result, size: int, mtime_ns: int) -> None:
    """Refuse the status of a file that is no longer what was listed.

    Raises:
        ExclusionError: Its size or time differs.
    """
    _must_equal(status.st_size, status.st_mtime_ns, size, mtime_ns)


def digest_source(path: str) -> str | None:
    """SHA-256 of a file or a member of an archive; None where it cannot be read."""
    try:
        with open_file(path) as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except (OSError, ExclusionError):
        return None


def _must_equal(size_now: int, mtime_ns_now: int, size: int, mtime_ns: int) -> None:
    if (size_now, mtime_ns_now) != (size, mtime_ns):
        raise ExclusionError(Reason.FILE_CHANGED, f"{size:,} bytes as listed, {size_now:,} now")


def _outermost(places: Sequence[Path]) -> list[Path]:
    """Places without those that are given twice, and without folders within others."""
    for place in places:
        must_exist(place)
    if not places:
        raise UsageError("no input is given; name a folder, a zip file or a DICOM file")
    resolved = {place.resolve(): place for place in reversed(places)}
    return [
        place
        for path, place in reversed(resolved.items())
        if not (path.is_dir() and any(above in resolved for above in path.parents))
    ]


def _list_one(place: Path) -> Listing:
    """The files of one place that exists."""
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
