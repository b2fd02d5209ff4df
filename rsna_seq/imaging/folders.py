"""List the files below a folder or in an archive: names, sizes and times; only archives are opened.

These get a row of QUARANTINE: links, pipes, names and times that a table cannot store, folders that cannot be
listed, and files that disappear.
"""

import os

from rsna_seq.imaging.archives import joined, members
from rsna_seq.reasons import Action, ExclusionError, Reason

Rows = list[dict[str, object]]
Found = tuple[str, int, int]
"""Name, size in bytes and modification time in ns."""

_CONTROLS = {c: f"\\x{c:02x}" for c in (*range(0x20), *range(0x7F, 0xA0))}
_EARLIEST_NS, _LATEST_NS = -(1 << 63), (1 << 63) - 1
"""Range of times in ns that fits into 64 bits: 1677 to 2262."""


def files_below(top: str, excluded: Rows) -> list[Found]:
    """List all files below a folder at any depth; as strings, not Paths, since there may be a million."""
    found: list[Found] = []
    waiting = [(top, "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            with os.scandir(folder) as listed:
                entries = list(listed)
        except OSError as error:
            excluded.append(
                ExclusionError(Reason.UNREADABLE_FILE, words_of(error)).row(escaped(prefix) or ".")
            )
            continue
        bad = is_bad_name(prefix)
        for entry in entries:
            name = prefix + entry.name
            try:
                if not entry.is_file(follow_symlinks=False):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, name + "/"))
                    else:
                        excluded.append(_not_a_file(entry).row(escaped(name)))
                elif bad or (not entry.name.isprintable() and is_bad_name(entry.name)):
                    excluded.append(ExclusionError(Reason.BAD_NAME).row(escaped(name)))
                elif entry.name.lower().endswith(".zip"):
                    found += files_in_archive(entry.path, name, excluded)
                else:
                    status = entry.stat(follow_symlinks=False)
                    if _EARLIEST_NS <= status.st_mtime_ns <= _LATEST_NS:
                        found.append((name, status.st_size, status.st_mtime_ns))
                    else:
                        excluded.append(ExclusionError(Reason.BAD_TIME).row(name))
            except OSError as error:  # it disappeared, or its folder is not accessible
                excluded.append(ExclusionError(Reason.UNREADABLE_FILE, words_of(error)).row(escaped(name)))
    return found


def _not_a_file(entry: "os.DirEntry[str]") -> ExclusionError:
    """Return the reason to skip an entry that is neither a file nor a folder."""
    if entry.is_symlink():
        return ExclusionError(Reason.LINK, action=Action.SKIPPED)
    return ExclusionError(Reason.NOT_DICOM, "not a regular file", action=Action.SKIPPED)


def files_in_archive(archive: str, name: str, excluded: Rows) -> list[Found]:
    """List all members of an archive.

    Args:
        archive: Path of the archive.
        name: Path of the archive relative to the root of the listing.
        excluded: Receives a row of QUARANTINE for each member that cannot be read, or for the archive.
    """
    try:
        valid, mtime_ns, damaged = members(archive)
        must_have_time(mtime_ns)
    except ExclusionError as error:
        excluded.append(error.row(name))
        return []
    found: list[Found] = []
    twin = os.path.isdir(joined(archive, ""))  # noqa: PTH112
    for member, size in valid:
        if is_bad_name(member):
            damaged.append((member, ExclusionError(Reason.BAD_NAME)))
        elif twin and os.path.lexists(joined(archive, member)):
            damaged.append(
                (member, ExclusionError(Reason.BAD_NAME, "a file outside the archive has the same path"))
            )
        else:
            found.append((joined(name, member), size, mtime_ns))
    excluded += [error.row(escaped(joined(name, member))) for member, error in damaged]
    return found


def must_have_time(mtime_ns: int) -> None:
    """Refuse a file whose modification time cannot be stored in a table.

    Raises:
        ExclusionError: The modification time is before 1678 or after 2261.
    """
    if not _EARLIEST_NS <= mtime_ns <= _LATEST_NS:
        raise ExclusionError(Reason.BAD_TIME)


def escaped(name: str) -> str:
    r"""Escape bytes that are not UTF-8 and control characters in a name, as ``\xff``."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace").translate(_CONTROLS)


def is_bad_name(name: str) -> bool:
    """Whether a name cannot be stored in a table: bytes that are not UTF-8, or control characters."""
    if name.isascii() and name.isprintable():
        return False
    return escaped(name) != name


def words_of(error: Exception) -> str:
    """Message of an operating system error, without the path."""
    return getattr(error, "strerror", None) or type(error).__name__
