"""Whole input files in memory, inflated if they are gzip, up to a size."""

import zlib

from rsna_seq.imaging.sources import open_file, verify
from rsna_seq.reasons import ExclusionError, Reason

_GZIP = b"\x1f\x8b"


def read_whole(path: str, largest: int) -> bytes:
    """Read a file or a member of an archive; gzip is inflated.

    Args:
        path: The file.
        largest: Largest size in bytes, inflated.

    Raises:
        ExclusionError: It cannot be read, is damaged, or is larger.
    """
    try:
        with open_file(path) as file:
            data: bytes = file.read(largest + 1)
            verify(file)
    except OSError as error:
        raise ExclusionError(Reason.UNREADABLE_FILE, type(error).__name__) from error
    if data.startswith(_GZIP):
        data = _inflated(data, largest)
    if len(data) > largest:
        raise ExclusionError(Reason.INFLATES_TOO_FAR, f"more than {largest:,} bytes")
    return data


def _inflated(data: bytes, largest: int) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    try:
        plain = inflate.decompress(data, largest + 1)
    except zlib.error as error:
        raise ExclusionError(Reason.PIXELS_UNDECODABLE, f"gzip: {error}") from error
    if not inflate.eof and len(plain) <= largest:
        raise ExclusionError(Reason.PIXELS_TRUNCATED, "the gzip stream ends too early")
    return plain
