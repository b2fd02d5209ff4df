"""Zip files as input: checked before any member is read, and refused if they are unsafe.

The path of a member is ``studies.zip!/folder/slice.dcm``: the archive's path, ``!/``, the member's name. If a
file with such a path exists, the path is that of the file: only :func:`member_of` decides. Nothing is
unpacked to disk.

1. :func:`members` checks the directory of an archive and lists its members.
2. :func:`open_member` opens a member; damage raises ``ExclusionError`` while the member is read, and
   ``Member.verify`` compares its length and checksum.
"""

import io
import os
import stat
import zipfile

from rsna_seq.errors import IntegrityError
from rsna_seq.imaging.reading import Status, open_path
from rsna_seq.imaging.zip_files import STREAMED, WHOLE, Member, inflated, opened, typed
from rsna_seq.reasons import ExclusionError, Reason

MARK = "!/"
"""Separator between the path of an archive and the name of a member."""
_MOST_MEMBERS = 1_000_000
"""The competition's archive contains 874,035 slices."""
_LARGEST_MEMBER = 2 << 30
_LARGEST_TOTAL = 1 << 40
_RATIO = 200
"""Limit of the compression ratio: real tissue reaches 2 to 6, and pure air stays below this limit."""
_SMALL = 1 << 20
"""Members below this size in bytes may have any compression ratio, since they are harmless."""


def member_of(path: str) -> tuple[str, str] | None:
    """Split a path into the archive's path and the member's name; None if it is the path of a file.

    An existing file of exactly this path has priority; otherwise the archive is the longest part before a
    ``!/`` that is a file. So folders such as ``Scans!`` and members with ``!/`` in their names work.
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
    """Join an archive's path, the separator and a member's name."""
    return f"{archive}{MARK}{name}"


def is_archive(path: str) -> bool:
    """Whether a file given by the user is read as an archive, by its name or its content."""
    if path.lower().endswith(".zip"):
        return True
    with open_path(path) as file:
        return file.read(132)[128:] != b"DICM" and zipfile.is_zipfile(file)


def members(archive: str) -> tuple[list[tuple[str, int]], int, list[tuple[str, ExclusionError]]]:
    """List the members of an archive that are not empty, in the archive's order.

    Args:
        archive: Path of a zip file.

    Returns:
        Name and size in bytes of each member; modification time of the archive in ns; and the members that
        cannot be read, with the reason.

    Raises:
        ExclusionError: The file is not a zip file, or its directory is damaged.
        IntegrityError: The archive is refused, before anything is read: a path outside the archive, a link,
            an encrypted member, a nested archive, or the sizes of a zip bomb.
    """
    held = opened(archive)
    found = held.file.infolist()
    damaged = {m.filename: error for m in found if (error := _damage(m, held.size))}
    fault = _fault_of_all(found, damaged, held.size) or next(filter(None, map(_fault, found)), None)
    if fault is not None:
        raise IntegrityError(f"{archive}: refused: {fault}; if you trust it, unpack it and give the folder")
    files = [m for m in found if m.file_size or not m.filename.endswith("/")]
    valid = [(m.filename, m.file_size) for m in files if m.filename not in damaged]
    return valid, held.mtime_ns, list(damaged.items())


def open_member(archive: str, name: str) -> Member:
    """Open a member of an archive for reading.

    Args:
        archive: Path of the archive.
        name: Name of the member in the archive.

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


def member_status(archive: str, name: str) -> Status:
    """Size of a member, and modification time of its archive.

    Raises:
        ExclusionError: The archive cannot be opened, or the member does not exist.
    """
    held = opened(archive)
    return Status(typed(lambda: held.file.getinfo(name)).file_size, held.mtime_ns)


def _damage(member: zipfile.ZipInfo, size: int) -> ExclusionError | None:
    """Return why a single member cannot be read, or None."""
    if member.header_offset + member.compress_size > size:
        return ExclusionError(Reason.BAD_MEMBER, "it extends beyond the end of the archive")
    if member.compress_type not in STREAMED | WHOLE:
        return ExclusionError(
            Reason.BAD_MEMBER, f"compression method {member.compress_type} is not supported"
        )
    return None


def _fault_of_all(found: list[zipfile.ZipInfo], damaged: dict[str, ExclusionError], size: int) -> str | None:
    """Return what is wrong with an archive as a whole, or None."""
    total = sum(m.file_size for m in found)
    packed = sum(m.compress_size for m in found if m.filename not in damaged)
    if len(found) > _MOST_MEMBERS:
        return f"{len(found):,} members, more than {_MOST_MEMBERS:,}"
    if total > _LARGEST_TOTAL:
        return f"{total:,} bytes in total, more than {_LARGEST_TOTAL:,}"
    if packed > size:
        return "its members overlap"
    if total > 16 * _SMALL and total > _RATIO / 2 * size:
        return f"it inflates from {size:,} to {total:,} bytes"
    if len({m.filename for m in found}) < len(found):
        return "two members have the same name"
    return None


def _fault(member: zipfile.ZipInfo) -> str | None:
    """Return what is wrong with one member, or None."""
    name = member.filename.replace("\\", "/")
    size, packed = member.file_size, max(1, member.compress_size)
    faults = {
        "is outside the archive": name.startswith("/") or ".." in name.split("/") or name[1:2] == ":",
        "is a link": stat.S_ISLNK(member.external_attr >> 16),
        "is encrypted": bool(member.flag_bits & 1),
        "is a nested archive": name.lower().endswith(".zip"),
        f"has {size:,} bytes": size > _LARGEST_MEMBER,
        f"inflates from {packed:,} to {size:,} bytes": size > max(_SMALL, _RATIO * packed),
    }
    fault = next((words for words, found in faults.items() if found), None)
    return None if fault is None else f"member {member.filename!r} {fault}"
