"""The process that decodes compressed pixels: one frame after another, in plain bytes over a socket.

1. It takes the socket from standard input and closes the standard streams: codecs write to them.
2. It imports pydicom and the codecs, limits its own memory, and says that it is ready.
3. For each :data:`REQUEST`, followed by a path, it answers with a :data:`REPLY`, followed by the stored
   values or by a reason. Its CPU time is limited for each frame: the kernel ends the process.
4. It ends when the other end of the socket is closed, also where that process was killed.

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
"""MAGIC, a Status, an index of DTYPES, rows, columns, bytes that follow."""
MAGIC = b"RSQ1"
DTYPES = ("<u2", "<i2", "|u1", "|i1")
"""Types of stored values of at most 16 bits: what a 16-bit image decodes to."""
LONGEST_TEXT = 4096
"""Bytes of a reason at most."""


class Status(IntEnum):
    """What a reply says."""

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
    """The file, or its archive's member, cannot be read: a Reason, a line feed and a detail follow."""


def serve(memory_bytes: int) -> None:
    """Decode frames until the other end of the socket is closed.

    Args:
        memory_bytes: What the process may allocate on top of what it has when it is ready.
    """
    connection = _take_connection()
    try:
        import pydicom.pixels  # before the limits: imports are not the file's fault

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
    """The socket that is standard input; the three standard streams lead nowhere from here on."""
    connection = socket.socket(fileno=os.dup(0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    return connection


def _limit(memory_bytes: int) -> None:
    """Limit memory, and let the CPU timer end the process, whatever the caller did with that signal."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold pixels and names
    if not os.path.exists("/proc/self/statm"):  # noqa: PTH110
        return
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
        pages = int(statm.read().split()[0])
    wanted, hard = pages * resource.getpagesize() + memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _decoded(pixels: Any, path: str, frame: int, shape: tuple[int, int]) -> tuple[Status, Any]:
    """Decode one frame: its stored values as a contiguous array, or why not."""
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
    except Exception as error:  # a damaged codestream raises anything
        return Status.FAULT, type(error).__name__


def _checked(values: Any, shape: tuple[int, int]) -> tuple[Status, Any]:
    """Decoded values as a contiguous array, where they are what a 16-bit image of this shape decodes to."""
    import numpy as np

    if values.shape != shape:
        return Status.FAULT, f"{values.shape} pixels, {shape} in the header"
    if values.dtype.str not in DTYPES:
        return Status.FAULT, f"pixels of type {values.dtype}, not of 16 bits"
    return Status.PIXELS, np.ascontiguousarray(values)


def _send_text(connection: socket.socket, status: Status, text: str) -> None:
    reason = text.encode(errors="replace")[:LONGEST_TEXT]
    connection.sendall(REPLY.pack(MAGIC, status, 0, 0, 0, len(reason)) + reason)


def _receive(connection: socket.socket, length: int) -> bytes:
    """So many bytes; fewer where the other end was closed."""
    data = b""
    while len(data) < length and (more := connection.recv(length - len(data))):
        data += more
    return data
