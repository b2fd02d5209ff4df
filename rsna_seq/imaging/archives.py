"""Zip files as input: looked through before anything is read, and refused where they are no plain archive.

A member is written ``studies.zip!/folder/slice.dcm``: an archive's path, ``!/``, the name within it. A path
that holds ``!/`` is that of a file all the same where such a file is there: :func:`member_of` alone decides.
Nothing is ever unpacked to disk.

1. :func:`members` looks through the directory of an archive.
2. :func:`open_member` opens a member; what is damaged in it raises ``ExclusionError`` while it is read, and
   ``Member.verify`` compares its length and checksum.
"""

import io
import os
import stat
import zipfile

from rsna_seq.errors import IntegrityError
from rsna_seq.imaging.zip_files import STREAMED, WHOLE, Member, inflated, opened, typed
from rsna_seq.reasons import ExclusionError, Reason

MARK = "!/"
"""Between the path of an archive and the name of a member."""
_MOST_MEMBERS = 1_000_000
"""The competition's own archive holds 874,035 slices."""
_LARGEST_MEMBER = 2 << 30
_LARGEST_TOTAL = 1 << 40
_RATIO = 200
"""Noise does not compress: a slice of real tissue shrinks by 2 to 6, one of pure air by less than this."""
_SMALL = 1 << 20
"""Members below so many bytes may shrink by any ratio: they cannot harm."""


def member_of(path: str) -> tuple[str, str] | None:
    """The archive's path and the member's name; None where the path is that of a file.

    A file of exactly this path comes first; else the longest part before a ``!/`` that is a file is the
    archive. So folders such as ``Scans!`` and members with ``!/`` in their names are what they are.
    """
    if MARK not in path or os.path.lexists(path):
        return None
    at = path.rfind(MARK)
    while at > 0:
        if os.path.isfile(path[:at]):  # noqa: PTH113  (a path of text, not a Path)
            return path[:at], path[at + len(MARK) :]
        at = path.rfind(MARK, 0, at + 1)
    return None


def joined(archive: str, name: str) -> str:
    """The path of a member: an archive's path, the mark, the member's name."""
    return f"{archive}{MARK}{name}"


def is_archive(path: str) -> bool:
    """Whether a file that the user names is to be read as an archive: by its name, or by its content."""
    if path.lower().endswith(".zip"):
        return True
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read(132)[128:] != b"DICM" and zipfile.is_zipfile(file)


def members(archive: str) -> tuple[list[tuple[str, int]], int, list[tuple[str, ExclusionError]]]:
    """Members of an archive that hold bytes, in the archive's order.

    Args:
        archive: Path of a zip file.

    Returns:
        Name and size in bytes of each; when the archive was last changed, in ns; and the members that cannot
        be read, with the reason.

    Raises:
        ExclusionError: It is no zip file, or its directory is damaged.
        IntegrityError: It is refused: a name that leads out of it, a link, an encrypted member, an archive
            in the archive, or sizes of a bomb. Nothing has been read then.
    """
    held = opened(archive)
    found = held.file.infolist()
    damaged = {m.filename: error for m in found if (error := _damage(m, held.size))}
    fault = _fault_of_all(found, damaged, held.size) or next(filter(None, map(_fault, found)), None)
    if fault is not None:
        raise IntegrityError(f"{archive}: refused: {fault}; unpack it yourself if you trust it")
    files = [m for m in found if m.file_size or not m.filename.endswith("/")]
    sound = [(m.filename, m.file_size) for m in files if m.filename not in damaged]
    return sound, held.mtime_ns, list(damaged.items())


def open_member(archive: str, name: str) -> Member:
    """Open a member of an archive for reading.

    Args:
        archive: Path of the archive.
        name: Name of the member within it.

    Raises:
        ExclusionError: The archive or the member cannot be read.
    """
    held = opened(archive)

    def find() -> Member:
        info = held.file.getinfo(name)
        if info.compress_type in WHOLE:
            return Member(io.BytesIO(inflated(held.file, info)), info, held)
        return Member(held.file.open(info), info, held)

    return typed(find)


def member_status(archive: str, name: str) -> tuple[int, int]:
    """Size in bytes of a member, and when its archive was last changed, in ns.

    Raises:
        ExclusionError: The archive cannot be opened, or has no such member.
    """
    held = opened(archive)
    return typed(lambda: held.file.getinfo(name)).file_size, held.mtime_ns


def _damage(member: zipfile.ZipInfo, size: int) -> ExclusionError | None:
    """Why a member cannot be read at all, while its neighbours can."""
    if member.header_offset + member.compress_size > size:
        return ExclusionError(Reason.BAD_MEMBER, "it reaches beyond the end of the archive")
    if member.compress_type not in STREAMED | WHOLE:
        return ExclusionError(
            Reason.BAD_MEMBER, f"compression method {member.compress_type} is not supported"
        )
    return None


def _fault_of_all(found: list[zipfile.ZipInfo], damaged: dict[str, ExclusionError], size: int) -> str | None:
    """What is wrong with an archive as a whole."""
    total = sum(m.file_size for m in found)
    packed = sum(m.compress_size for m in found if m.filename not in damaged)
    if len(found) > _MOST_MEMBERS:
        return f"{len(found):,} members, more than {_MOST_MEMBERS:,}"
    if total > _LARGEST_TOTAL:
        return f"{total:,} bytes in all, more than {_LARGEST_TOTAL:,}"
    if packed > size:
        return "its members overlap"
    if total > 16 * _SMALL and total > _RATIO / 2 * size:
        return f"it grows from {size:,} to {total:,} bytes"
    if len({m.filename for m in found}) < len(found):
        return "two members have one name"
    return None


def _fault(member: zipfile.ZipInfo) -> str | None:
    """What is wrong with one member."""
    name = member.filename.replace("\\", "/")
    size, packed = member.file_size, max(1, member.compress_size)
    faults = {
        "leads out of the archive": name.startswith("/") or ".." in name.split("/") or name[1:2] == ":",
        "is a link": stat.S_ISLNK(member.external_attr >> 16),
        "is encrypted": bool(member.flag_bits & 1),
        "is an archive itself": name.lower().endswith(".zip"),
        f"holds {size:,} bytes": size > _LARGEST_MEMBER,
        f"grows from {packed:,} to {size:,} bytes": size > max(_SMALL, _RATIO * packed),
    }
    fault = next((words for words, found in faults.items() if found), None)
    return None if fault is None else f"member {member.filename!r} {fault}"
