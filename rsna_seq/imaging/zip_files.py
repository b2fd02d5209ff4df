"""An open zip file: its members as file objects; all faults raise ``ExclusionError``.

1. :func:`opened`: an archive is opened once per process, and again if the file was replaced.
2. :class:`Member`: a member as a file object; :meth:`Member.verify` compares length and checksum.
"""

import bz2
import copy
import io
import lzma
import os
import struct
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, TypeVar

from rsna_seq.imaging.reading import identity_of, open_zip
from rsna_seq.reasons import ExclusionError, Reason

Result = TypeVar("Result")

STREAMED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
WHOLE = {zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
"""Compression methods for which ``zipfile`` limits the inflated size, and those for which it does not."""
_MOST_OPEN = 4
_BLOCK = 1 << 20


@dataclass
class Opened:
    """An open archive, and its identity when it was opened.

    Attributes:
        file: The archive.
        identity: Device, inode, size and modification time, to detect that the file was replaced.
        verified: The member that was verified last, since the frames of a large member are read one by one.
    """

    file: zipfile.ZipFile
    identity: tuple[int, int, int, int]
    verified: str = ""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.identity[2]

    @property
    def mtime_ns(self) -> int:
        """Modification time in ns."""
        return self.identity[3]


_KEPT: "OrderedDict[str, Opened]" = OrderedDict()
_LOCK = threading.Lock()


class Member(io.BufferedIOBase):
    """A member of an archive, open for reading and seekable.

    All exceptions of ``zipfile`` and the decompressors are raised as ``ExclusionError`` (``bad_member``).

    Attributes:
        size: Size in bytes according to the directory of the archive.
        mtime_ns: Modification time of the archive.
    """

    def __init__(self, file: IO[bytes], info: zipfile.ZipInfo, archive: Opened) -> None:
        super().__init__()
        self._file, self._archive, self._name = file, archive, info.filename
        self.size, self.mtime_ns = info.file_size, archive.mtime_ns

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position in bytes from the start."""
        return self._file.tell()

    def read(self, size: int | None = -1, /) -> bytes:
        """Read a number of bytes, or all remaining bytes."""
        return typed(lambda: self._file.read(-1 if size is None else size))

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer; return the number of bytes read."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Seek to a position. Seeking forward reads all bytes, so that the checksum can be compared."""
        if whence == os.SEEK_END:
            self.verify()
        to = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.tell()}.get(whence, self.size))
        if to < self.tell() or self._archive.verified == self._name:
            return typed(lambda: self._file.seek(to))
        while (left := to - self.tell()) > 0 and self.read(min(left, _BLOCK)):
            pass
        return self.tell()

    def verify(self) -> None:
        """Read to the end, if this was not done before, and compare length and checksum.

        Raises:
            ExclusionError: The member is damaged.
        """
        if self._archive.verified == self._name:
            return
        while self.read(_BLOCK):
            pass
        if self.tell() != self.size:
            detail = f"{self.tell():,} bytes, {self.size:,} according to the archive's directory"
            raise ExclusionError(Reason.BAD_MEMBER, detail)
        self._archive.verified = self._name

    def close(self) -> None:
        """Close the member; the archive remains open."""
        self._file.close()
        super().close()


def typed(work: Callable[[], Result]) -> Result:
    """Run a function on a member; all exceptions are raised as ExclusionError."""
    try:
        return work()
    except ExclusionError:
        raise
    except KeyError as error:
        raise ExclusionError(Reason.FILE_CHANGED, "the archive no longer contains this member") from error
    except OSError as error:
        reason = Reason.UNREADABLE_FILE if error.errno else Reason.BAD_MEMBER  # bzip2 raises a plain OSError
        raise ExclusionError(reason, error.strerror or type(error).__name__) from error
    except Exception as error:  # a damaged member may raise any exception
        raise ExclusionError(Reason.BAD_MEMBER, type(error).__name__) from error


def opened(archive: str) -> Opened:
    """Open an archive once per process while it does not change: reading its directory may take seconds.

    Raises:
        ExclusionError: The file cannot be opened, is not a zip file, or its directory is damaged.
    """
    with _LOCK:
        try:
            identity = identity_of(archive)
            kept = _KEPT.get(archive)
            if kept is not None and kept.identity == identity:
                _KEPT.move_to_end(archive)
                return kept
            while kept is not None or len(_KEPT) >= _MOST_OPEN:
                old = _KEPT.pop(archive) if kept is not None else _KEPT.popitem(last=False)[1]
                old.file.close()
                kept = None
            _KEPT[archive] = Opened(*open_zip(archive))
            return _KEPT[archive]
        except OSError as error:
            raise ExclusionError(Reason.UNREADABLE_FILE, error.strerror or type(error).__name__) from error
        except Exception as error:  # a damaged directory may raise any exception
            raise ExclusionError(Reason.BAD_ARCHIVE, type(error).__name__) from error


def inflated(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Inflate a whole bzip2 or LZMA member, up to its declared size."""
    raw = copy.copy(info)
    raw.compress_type, raw.file_size = zipfile.ZIP_STORED, info.compress_size
    del raw.CRC  # it applies to the inflated bytes
    with archive.open(raw) as file:
        packed = file.read()
    if info.compress_type == zipfile.ZIP_BZIP2:
        data = bz2.BZ2Decompressor().decompress(packed, info.file_size)
    else:  # .ZIP application note 5.8.8: version, length of the properties, properties, codestream
        length = struct.unpack_from("<H", packed, 2)[0]
        kind, window = struct.unpack_from("<BI", packed, 4)
        properties = {
            **{"id": lzma.FILTER_LZMA1, "dict_size": max(4096, min(window, info.file_size))},
            **{"lc": kind % 9, "lp": kind // 9 % 5, "pb": kind // 45},
        }
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[properties])
        data = unpacker.decompress(packed[4 + length :], info.file_size)
    if zlib.crc32(data) != info.CRC:
        raise zipfile.BadZipFile("Bad CRC-32")
    return data
