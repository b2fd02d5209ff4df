"""A study in the queue, its states, and how its instances are identified."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from rsna_seq.store.provenance import digest_file


class State(StrEnum):
    """States of a study; it passes them in this order, and ends as ``sent``, ``answered`` or ``failed``."""

    RECEIVED = "received"
    """Instances are arriving."""
    STABLE = "stable"
    """Complete; waits to be scored."""
    SCORING = "scoring"
    """A process scores it."""
    ANSWERED = "answered"
    """The results are written; they are sent if there is a destination."""
    SENT = "sent"
    """The destination has stored the results."""
    FAILED = "failed"
    """There are no results, or they could not be sent; ``reason`` says why."""


@dataclass(frozen=True)
class Job:
    """One study in the queue.

    Attributes:
        id: Number of the study in the queue.
        study: StudyInstanceUID, or where unreadable files are.
        source: Where it came from.
        key: Name of the study in its source.
        digest: Digest of its instances; None while they arrive.
        files: The instances: files, or one folder.
        folder: A folder that belongs to this study and is deleted after the answer, or None.
        state: The state.
        tries: How often it was scored, without an end or without success.
        sends: How often its results were sent in vain.
        reason: Why it has failed, or why the last try has.
        answer: Folder of the results, relative to the service's folder, or None.
        to_send: The results are to be sent.
        due: Time before which it is not tried again, in seconds since 1970.
        received: Time at which the first instance was seen, in seconds since 1970.
        stable: Time at which it was complete, or None.
        answered: Time at which the results were written, or None.
        sent: Time at which the results were stored, or None.
    """

    id: int
    study: str
    source: str
    key: str
    digest: str | None
    files: tuple[Path, ...]
    folder: Path | None
    state: State
    tries: int
    sends: int
    reason: str | None
    answer: Path | None
    to_send: bool
    due: float
    received: float
    stable: float | None
    answered: float | None
    sent: float | None


def digest_of(files: Iterable[Path]) -> str:
    """Digest of the instances of a study: the same bytes in any order, under any names, give the same.

    Args:
        files: Files, each with one instance.

    Raises:
        OSError: A file cannot be read.
    """
    return hashlib.sha256("".join(sorted(map(digest_file, files))).encode()).hexdigest()


def signature_of(parts: Iterable[tuple[object, ...]]) -> str:
    """Digest by which a source tells that a study has not changed, without reading its instances.

    Args:
        parts: For each instance, what changes with it, such as name, size and time.
    """
    return hashlib.sha256("\n".join(sorted(map(repr, parts))).encode(errors="replace")).hexdigest()
