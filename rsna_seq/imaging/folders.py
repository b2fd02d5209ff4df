"""The files below one folder, or in one archive: names, sizes and times; nothing is opened but archives.

What is never read gets a row of QUARANTINE: links, pipes, names and times that no table can hold, folders
that cannot be listed, files that vanish.
"""

import os

from rsna_seq.imaging.archives import joined, members
from rsna_seq.reasons import Action, ExclusionError, Reason

Rows = list[dict[str, object]]
Found = tuple[str, int, int]
"""Name, size in bytes, and when it was last changed, in ns."""

_CONTROLS = {c: f"\\x{c:02x}" for c in (*range(0x20), *range(0x7F, 0xA0))}
_EARLIEST_NS, _LATEST_NS = -(1 << 63), (1 << 63) - 1
"""Times that 64 bits hold: from 1677 to 2262."""


def files_below(top: str, aside: Rows) -> list[Found]:
    """Every file below a folder, however deep; strings and no Paths, for there may be a million."""
    found: list[Found] = []
    waiting = [(top, "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            with os.scandir(folder) as listed:
                entries = list(listed)
        except OSError as error:
            aside.append(ExclusionError(Reason.UNREADABLE_FILE, words_of(error)).row(escaped(prefix) or "."))
            continue
        bad = is_bad_name(prefix)
        for entry in entries:
            name = prefix + entry.name
            try:
                if not entry.is_file(follow_symlinks=False):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, name + "/"))
                    else:
                        aside.append(_not_a_file(entry).row(escaped(name)))
                elif bad or (not entry.name.isprintable() and is_bad_name(entry.name)):
                    aside.append(ExclusionError(Reason.BAD_NAME).row(escaped(name)))
                elif entry.name.lower().endswith(".zip"):
                    found += files_in_archive(entry.path, name, aside)
                else:
                    status = entry.stat(follow_symlinks=False)
                    if _EARLIEST_NS <= status.st_mtime_ns <= _LATEST_NS:
                        found.append((name, status.st_size, status.st_mtime_ns))
                    else:
                        aside.append(ExclusionError(Reason.BAD_TIME).row(name))
            except OSError as error:  # it vanished, or its folder may not be searched
                aside.append(ExclusionError(Reason.UNREADABLE_FILE, words_of(error)).row(escaped(name)))
    return found


def _not_a_file(entry: "os.DirEntry[str]") -> ExclusionError:
    """Why something that is neither a file nor a folder is skipped."""
    if entry.is_symlink():
        return ExclusionError(Reason.LINK, action=Action.SKIPPED)
    return ExclusionError(Reason.NOT_DICOM, "no regular file", action=Action.SKIPPED)


def files_in_archive(archive: str, name: str, aside: Rows) -> list[Found]:
    """Every member of an archive.

    Args:
        archive: Its path.
        name: Its path relative to the root of the listing.
        aside: Receives a row of QUARANTINE for each member that cannot be read, or for the whole.
    """
    try:
        sound, mtime_ns, damaged = members(archive)
        must_have_time(mtime_ns)
    except ExclusionError as error:
        aside.append(error.row(name))
        return []
    found: list[Found] = []
    twin = os.path.isdir(joined(archive, ""))  # noqa: PTH112
    for member, size in sound:
        if is_bad_name(member):
            damaged.append((member, ExclusionError(Reason.BAD_NAME)))
        elif twin and os.path.lexists(joined(archive, member)):
            damaged.append(
                (member, ExclusionError(Reason.BAD_NAME, "a file beside the archive has its path"))
            )
        else:
            found.append((joined(name, member), size, mtime_ns))
    aside += [error.row(escaped(joined(name, member))) for member, error in damaged]
    return found


def must_have_time(mtime_ns: int) -> None:
    """Refuse a file whose time no table holds.

    Raises:
        ExclusionError: It was last changed before 1678 or after 2261.
    """
    if not _EARLIEST_NS <= mtime_ns <= _LATEST_NS:
        raise ExclusionError(Reason.BAD_TIME)


def escaped(name: str) -> str:
    r"""A name that can be stored and printed: bytes that are not UTF-8 and control characters as ``\xff``."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace").translate(_CONTROLS)


def is_bad_name(name: str) -> bool:
    """Whether a name cannot stand in a table: bytes that are not UTF-8, or control characters."""
    if name.isascii() and name.isprintable():
        return False
    return escaped(name) != name


def words_of(error: Exception) -> str:
    """What the system says of an error, without the path."""
    return getattr(error, "strerror", None) or type(error).__name__
