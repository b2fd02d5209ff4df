"""Zip files as input: looked through before anything is read, and refused where they are no plain archive.

A member is written ``studies.zip!/folder/slice.dcm``: an archive's path, ``!/``, the name within it.
Nothing is ever unpacked to disk.
"""

import stat
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from rsna_seq.errors import IntegrityError
from rsna_seq.reasons import Reason, SetAsideError

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


def members(archive: Path) -> list[zipfile.ZipInfo]:
    """Members of an archive that hold bytes, in the archive's order.

    Raises:
        SetAsideError: It is no zip file, or its directory is damaged.
        IntegrityError: It is refused: a name that leads out of it, a link, an encrypted member, an archive
            in the archive, or sizes of a bomb. Nothing has been read then.
    """
    try:
        found = _opened(str(archive)).infolist()
        size = archive.stat().st_size
    except OSError as error:
        raise SetAsideError(Reason.UNREADABLE_FILE, type(error).__name__) from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise SetAsideError(Reason.BAD_ARCHIVE, type(error).__name__) from error
    fault = _fault_of_all(found, size) or next(filter(None, map(_fault, found)), None)
    if fault is not None:
        raise IntegrityError(f"{archive}: refused: {fault}; unpack it yourself if you trust it")
    return [m for m in found if not m.is_dir()]


def open_member(path: str) -> BinaryIO:
    """Open ``archive.zip!/member`` for reading; it can be sought.

    Raises:
        OSError: The archive or the member cannot be read.
    """
    archive, _, name = path.partition(MARK)
    try:
        file = _opened(archive).open(name)
    except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise OSError(f"no readable member: {type(error).__name__}") from error
    return file  # type: ignore[return-value]  # ZipExtFile is a BinaryIO in all but name


@lru_cache(maxsize=4)
def _opened(archive: str) -> zipfile.ZipFile:
    """An archive, opened once a process: the directory of a large one takes seconds to read."""
    return zipfile.ZipFile(archive)


def _fault_of_all(found: list[zipfile.ZipInfo], size: int) -> str | None:
    """What is wrong with an archive as a whole."""
    total, packed = sum(m.file_size for m in found), sum(m.compress_size for m in found)
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
