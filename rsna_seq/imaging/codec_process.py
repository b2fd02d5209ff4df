"""Client of one :mod:`rsna_seq.imaging.codec_server` process: start it, exchange messages, end it.

The process runs no user code: the caller's script is not imported again, and only a few environment variables
are inherited. Replies are checked against the request before memory is allocated.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import rsna_seq
from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.imaging.codec_server import DTYPES, LONGEST_TEXT, MAGIC, REPLY, REQUEST, Status
from rsna_seq.reasons import Reason

_ENVIRONMENT = (
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD"),
    *("DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
)
"""Environment variables that the process inherits: library paths and the encoding of file names."""
_CODE = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from rsna_seq.imaging.codec_server import serve; serve(int(sys.argv[1]))"
)
_GRACE_S = 5.0
"""Seconds to wait for the end of a process: a process that waits for a disk cannot be killed."""
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
Answer = tuple[Status, NDArray[np.integer] | str]
"""Status of a reply, and the stored values or a reason."""


class LostError(Exception):
    """The process died, did not reply in time, or sent an invalid reply; it has been ended."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class CodecProcess:
    """A running process that can decode frames.

    Args:
        memory_bytes: Memory that the process may allocate.
        start_s: Seconds within which the process must be ready.

    Raises:
        EnvironmentFaultError: The process cannot be started, or is not ready in time.
    """

    def __init__(self, memory_bytes: int, start_s: float) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _start(theirs, memory_bytes)
            status, why = self._answer((0, 0), None, time.monotonic() + start_s)
        except TimeoutError:
            status, why = (
                Status.NO_START,
                f"it was not ready after {start_s:g} s; the machine may be overloaded",
            )
        except (OSError, EOFError, LostError) as error:
            code = self.end(grace_s=_GRACE_S)
            status, why = Status.NO_START, str(error) if code is None else _ending(code)
        except BaseException:
            self.end()
            raise
        if status != Status.READY:
            self.end()
            raise EnvironmentFaultError(
                f"the process that decodes compressed pixels cannot be started by {sys.executable}: {why}; "
                "no input file is the cause: free memory or CPU cores and run the same command again"
            )

    @property
    def pid(self) -> int | None:
        """Process id; None after the process was ended."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is still running."""
        return self._process is not None and self._process.poll() is None

    def exchange(
        self,
        path: str,
        frame: int,
        shape: tuple[int, int],
        out: NDArray[np.int16] | None,
        *,
        cpu_s: float,
        wall_s: float,
    ) -> Answer:
        """Send a request and read the reply.

        Args:
            path: Absolute path of a file, or of a member of an archive.
            frame: Number of the frame, from 0.
            shape: Rows and columns that the reply must have.
            out: Array of this shape for the values, used if they have 16 bits.
            cpu_s: Limit of CPU time for decoding, in seconds.
            wall_s: Seconds after which a process that does not reply is ended.

        Raises:
            LostError: The process died, did not reply in time, or sent an invalid reply.
        """
        name = path.encode("utf-8", "surrogatepass")
        try:
            self._connection.settimeout(wall_s)
            self._connection.sendall(REQUEST.pack(frame, *shape, cpu_s, len(name)) + name, _NO_SIGNAL)
            return self._answer(shape, out, time.monotonic() + wall_s)
        except TimeoutError as error:
            self.end()
            raise LostError(Reason.DECODE_TIMEOUT, f"no reply within {wall_s:g} s") from error
        except (OSError, EOFError) as error:
            code = self.end(grace_s=_GRACE_S)
            if code == -signal.SIGPROF:
                raise LostError(Reason.DECODE_TIMEOUT, f"more than {cpu_s:g} s of CPU time") from error
            raise LostError(Reason.WORKER_DIED, _ending(code)) from error
        except BaseException:  # a late reply must not be read as the reply to the next request
            self.end()
            raise

    def end(self, *, grace_s: float = 0.0) -> int | None:
        """End the process and collect its exit status, so that no zombie process remains.

        Args:
            grace_s: Seconds in which it may exit by itself, so that its exit status gives the cause.

        Returns:
            The exit status as in ``subprocess``; None if the process was never started.
        """
        process, self._process = self._process, None
        if process is not None and grace_s:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace_s)
        self._connection.close()
        if process is None:
            return None
        if process.returncode is None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
        return process.returncode

    def forget(self) -> None:
        """Release the process without ending it: it belongs to the parent of this forked process."""
        process, self._process = self._process, None
        self._connection.close()
        if process is not None:
            process.returncode = (
                0  # otherwise its finalizer would wait for a process that is not a child of this one
            )

    def _answer(self, shape: tuple[int, int], out: NDArray[np.int16] | None, deadline: float) -> Answer:
        """Read one reply: a reason, or the values of a frame of the requested shape."""
        head = bytearray(REPLY.size)
        self._fill(memoryview(head), deadline)
        magic, status, kind, rows, columns, length = REPLY.unpack(head)
        if magic != MAGIC or status not in list(Status):
            raise LostError(Reason.WORKER_DIED, "it sent an invalid reply")
        if status != Status.PIXELS:
            text = bytearray(min(length, LONGEST_TEXT))
            self._fill(memoryview(text), deadline)
            return Status(status), text.decode(errors="replace")
        dtype = np.dtype(DTYPES[min(kind, len(DTYPES) - 1)])
        if (rows, columns) != shape or length != rows * columns * dtype.itemsize or not length:
            raise LostError(Reason.WORKER_DIED, "it sent a frame of another size")
        if out is not None and dtype.itemsize == out.itemsize:
            values: NDArray[np.integer] = out.view(dtype)
        else:
            values = np.empty(shape, dtype)
        self._fill(values.data.cast("B"), deadline)
        return Status.PIXELS, values

    def _fill(self, target: memoryview, deadline: float) -> None:
        """Receive exactly as many bytes as the target has.

        Raises:
            TimeoutError: The bytes did not arrive in time.
            EOFError: The process ended before it sent all bytes.
        """
        at = 0
        while at < len(target):
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            received = self._connection.recv_into(target[at:])
            if not received:
                raise EOFError
            at += received


def _start(connection: socket.socket, memory_bytes: int) -> "subprocess.Popen[bytes]":
    """Start the process with the server end of the connection as standard input."""
    flags = ["-I"]  # imports must not depend on the user's script or environment variables
    flags += ["-X", "utf8"] if sys.flags.utf8_mode else []
    flags += ["-B"] if sys.flags.dont_write_bytecode else []
    return subprocess.Popen(
        [sys.executable, *flags, "-c", _CODE, str(memory_bytes), *_search_path()],
        stdin=connection.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_environment(os.environ),
        cwd="/",
        start_new_session=True,  # only the caller handles Ctrl-C
    )


def _search_path() -> list[str]:
    """Module search path of this process as absolute paths."""
    ours = str(Path(rsna_seq.__file__).resolve().parent.parent)
    there = [os.path.abspath(entry) for entry in sys.path if entry]  # noqa: PTH100  (must not resolve links)
    return there if ours in there else [*there, ours]


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Environment of the process; NumPy's threads are turned off, since they only use memory."""
    kept = {name: variables[name] for name in _ENVIRONMENT if name in variables}
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _ending(code: int | None) -> str:
    """Describe how a process ended."""
    if code is None or code >= 0:
        return f"it ended with exit code {code}"
    return f"it was ended by signal {-code}"
