"""Process that decodes compressed pixels, one frame at a time, over a socket.

1. It reads the socket from standard input and closes the standard streams, since codecs print to them.
2. It imports pydicom and the codecs, limits its own memory, and reports that it is ready.
3. It replies to each :data:`REQUEST`, followed by a path, with a :data:`REPLY`, followed by the stored values
   or a reason. CPU time is limited per frame: the kernel ends a process that exceeds the limit.
4. It exits when the other end of the socket is closed, also if the client was killed.

:mod:`rsna_seq.imaging.decoder` starts it and is its only client.
"""

import os
import resource
import signal
import socket
import struct
import warnings
from enum import IntEnum
from typing import Any

from rsna_seq.reasons import ExclusionError, Reason

REQUEST = struct.Struct("<IIIdI")
"""Frame from 0, rows, columns, seconds of CPU time, bytes of the path that follows (UTF-8)."""
REPLY = struct.Struct("<4sBBIIQ")
"""MAGIC, a Status, an index of DTYPES, rows, columns, number of bytes that follow."""
MAGIC = b"RSQ1"
DTYPES = ("<u2", "<i2", "|u1", "|i1")
"""Possible types of the stored values of a 16-bit image."""
LONGEST_TEXT = 4096
"""Maximum length of a reason in bytes."""


class Status(IntEnum):
    """Status of a reply."""

    READY = 0
    """The process can decode."""
    NO_START = 1
    """The process cannot decode: an import or a limit failed; a reason follows."""
    PIXELS = 2
    """Stored values follow, (rows, columns)."""
    FAULT = 3
    """The frame cannot be decoded; a reason follows."""
    MISSING = 4
    """The codec that the frame needs is not installed; a reason follows."""
    REFUSED = 5
    """The file or archive member cannot be read: a Reason, a line feed and a detail follow."""


def serve(memory_bytes: int) -> None:
    """Decode frames until the other end of the socket is closed.

    Args:
        memory_bytes: Memory that the process may allocate in addition to what it uses when it is ready.
    """
    connection = _take_connection()
    try:
        import pydicom.pixels  # before the limits, which apply only to decoding

        _limit(memory_bytes)
    except Exception as error:
        _send_text(connection, Status.NO_START, f"{type(error).__name__}: {error}")
        return
    _send_text(connection, Status.READY, "")
    while len(head := _receive(connection, REQUEST.size)) == REQUEST.size:
        frame, rows, columns, cpu_s, length = REQUEST.unpack(head)
        path = _receive(connection, length).decode("utf-8", "surrogatepass")
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # CPU time of all threads; the kernel ends the process
        status, answer = _decoded(pydicom.pixels, path, frame, (rows, columns))
        signal.setitimer(signal.ITIMER_PROF, 0)
        if status is Status.PIXELS:
            connection.sendall(
                REPLY.pack(MAGIC, status, DTYPES.index(answer.dtype.str), rows, columns, answer.nbytes)
            )
            connection.sendall(answer.data.cast("B"))
        else:
            _send_text(connection, status, answer)


def _take_connection() -> socket.socket:
    """Take the socket from standard input and redirect the three standard streams to the null device."""
    connection = socket.socket(fileno=os.dup(0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    return connection


def _limit(memory_bytes: int) -> None:
    """Limit memory, and let the CPU timer end the process even if the caller ignores that signal."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would contain pixels and names
    if not os.path.exists("/proc/self/statm"):  # noqa: PTH110
        return
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
        pages = int(statm.read().split()[0])
    wanted, hard = pages * resource.getpagesize() + memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _decoded(pixels: Any, path: str, frame: int, shape: tuple[int, int]) -> tuple[Status, Any]:
    """Decode one frame: return its stored values as a contiguous array, or a reason."""
    from rsna_seq.imaging.sources import open_file

    try:
        try:
            opened = open_file(path)
        except OSError as error:
            raise ExclusionError(Reason.UNREADABLE_FILE, type(error).__name__) from error
        with opened as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _checked(pixels.pixel_array(file, index=frame, raw=True), shape)
    except ExclusionError as error:
        return Status.REFUSED, f"{error.reason}\n{error.detail}"
    except RuntimeError as error:
        missing = "missing dependencies" in str(error) or "plugins are missing" in str(error)
        return (Status.MISSING, str(error)) if missing else (Status.FAULT, type(error).__name__)
    except Exception as error:  # a damaged codestream may raise any exception
        return Status.FAULT, type(error).__name__


def _checked(values: Any, shape: tuple[int, int]) -> tuple[Status, Any]:
    """Return decoded values as a contiguous array if shape and type are valid for a 16-bit image."""
    import numpy as np

    if values.shape != shape:
        return Status.FAULT, f"{values.shape} pixels, {shape} in the header"
    if values.dtype.str not in DTYPES:
        return Status.FAULT, f"pixels of type {values.dtype}, not 16-bit"
    return Status.PIXELS, np.ascontiguousarray(values)


def _send_text(connection: socket.socket, status: Status, text: str) -> None:
    reason = text.encode(errors="replace")[:LONGEST_TEXT]
    connection.sendall(REPLY.pack(MAGIC, status, 0, 0, 0, len(reason)) + reason)


def _receive(connection: socket.socket, length: int) -> bytes:
    """Receive a number of bytes; fewer if the other end was closed."""
    data = b""
    while len(data) < length and (more := connection.recv(length - len(data))):
        data += more
    return data
