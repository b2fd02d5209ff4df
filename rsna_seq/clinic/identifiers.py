"""Unique identifiers of DICOM objects (PS3.5 9): valid ones for sources that have none, and new ones.

Every UID made here is ``2.25.`` and the decimal form of a UUID (PS3.5 B.2) that is derived from a SHA-256, so
the same input gives the same UID on every machine.
"""

import hashlib
import re
import uuid

_PATTERN = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_LONGEST = 64


def is_valid_uid(text: str) -> bool:
    """Whether a text is a UID: components of digits without leading zeros, at most 64 characters."""
    return len(text) <= _LONGEST and "." in text and _PATTERN.fullmatch(text) is not None


def new_uid(*parts: str) -> str:
    """The UID of these parts; other parts, or the same in another order, give another UID.

    Args:
        parts: What the UID depends on.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogatepass")
        digest.update(f"{len(data)}:".encode() + data)
    return f"2.25.{uuid.UUID(bytes=digest.digest()[:16], version=5).int}"


def valid_uid(text: str) -> str:
    """The identifier itself if it is a valid UID, otherwise a UID that depends on nothing but it.

    Args:
        text: An identifier of the source, such as ``ID_728dd7d7`` in the competition's files.
    """
    return text if is_valid_uid(text) else new_uid("source", text)
