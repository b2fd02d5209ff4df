"""One run of :mod:`rsna_seq.imaging.codec_server`: started, spoken to in plain bytes, ended.

The process runs nothing of the user's: no script is imported again, and of the environment only a few
variables are inherited. What it answers is checked against what was asked before anything is allocated.
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
"""Variables that the process inherits: what finds libraries, and how names of files are encoded."""
_CODE = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from rsna_seq.imaging.codec_server import serve; serve(int(sys.argv[1]))"
)
_GRACE_S = 5.0
"""How long a process may take to end: one that waits for a disk cannot even be killed."""
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
Answer = tuple[Status, NDArray[np.integer] | str]
"""What a reply says, and the stored values or a reason."""


class LostError(Exception):
    """The process died, did not answer in time, or answered what was not asked; it has been ended."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class CodecProcess:
    """A process that is ready to decode.

    Args:
        memory_bytes: What it may allocate.
        start_s: Seconds in which it must be ready.

    Raises:
        EnvironmentFaultError: It cannot be started, or is not ready in time.
    """

    def __init__(self, memory_bytes: int, start_s: float) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _start(theirs, memory_bytes)
            status, why = self._answer((0, 0), None, time.monotonic() + start_s)
        except TimeoutError:
            status, why = Status.NO_START, f"it was not ready after {start_s:g} s, is the machine overloaded?"
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
                "no file is at fault: free memory or processors and run the same command again"
            )

    @property
    def pid(self) -> int | None:
        """Its number, None once it was ended."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it was not ended and did not die."""
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
        """Send a request and read its answer.

        Args:
            path: A file that does not depend on the working directory, or a member of an archive.
            frame: Number of the frame, from 0.
            shape: Rows and columns that the answer must have.
            out: Memory of this shape for the values, used where they have 16 bits.
            cpu_s: Seconds of CPU time that the decoding may take.
            wall_s: Seconds after which a process that does not answer is ended.

        Raises:
            LostError: The process died, did not answer in time, or answered what was not asked.
        """
        name = path.encode("utf-8", "surrogatepass")
        try:
            self._connection.settimeout(wall_s)
            self._connection.sendall(REQUEST.pack(frame, *shape, cpu_s, len(name)) + name, _NO_SIGNAL)
            return self._answer(shape, out, time.monotonic() + wall_s)
        except TimeoutError as error:
            self.end()
            raise LostError(Reason.DECODE_TIMEOUT, f"no answer in {wall_s:g} s") from error
        except (OSError, EOFError) as error:
            code = self.end(grace_s=_GRACE_S)
            if code == -signal.SIGPROF:
                raise LostError(Reason.DECODE_TIMEOUT, f"more than {cpu_s:g} s of CPU time") from error
            raise LostError(Reason.WORKER_DIED, _ending(code)) from error
        except BaseException:  # an answer that is still under way must not be taken for the next one
            self.end()
            raise

    def end(self, *, grace_s: float = 0.0) -> int | None:
        """End the process and take its exit status, so that no zombie stays.

        Args:
            grace_s: Seconds in which it may end of itself: what a process died of is told by its status.

        Returns:
            The exit status as ``subprocess`` has it; None where the process was never started.
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
        """Drop the process without ending it: it belongs to the process that this one was forked from."""
        process, self._process = self._process, None
        self._connection.close()
        if process is not None:
            process.returncode = 0  # else its finalizer would wait for a process that is no child of this one

    def _answer(self, shape: tuple[int, int], out: NDArray[np.int16] | None, deadline: float) -> Answer:
        """Read one reply: a reason, or the values of a frame of the shape that was asked for."""
        head = bytearray(REPLY.size)
        self._fill(memoryview(head), deadline)
        magic, status, kind, rows, columns, length = REPLY.unpack(head)
        if magic != MAGIC or status not in list(Status):
            raise LostError(Reason.WORKER_DIED, "it answered what is no reply")
        if status != Status.PIXELS:
            text = bytearray(min(length, LONGEST_TEXT))
            self._fill(memoryview(text), deadline)
            return Status(status), text.decode(errors="replace")
        dtype = np.dtype(DTYPES[min(kind, len(DTYPES) - 1)])
        if (rows, columns) != shape or length != rows * columns * dtype.itemsize or not length:
            raise LostError(Reason.WORKER_DIED, "it answered with a frame of another size")
        if out is not None and dtype.itemsize == out.itemsize:
            values: NDArray[np.integer] = out.view(dtype)
        else:
            values = np.empty(shape, dtype)
        self._fill(values.data.cast("B"), deadline)
        return Status.PIXELS, values

    def _fill(self, target: memoryview, deadline: float) -> None:
        """Receive exactly as many bytes as the target holds.

        Raises:
            TimeoutError: They did not come in time.
            EOFError: The process ended before.
        """
        at = 0
        while at < len(target):
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            received = self._connection.recv_into(target[at:])
            if not received:
                raise EOFError
            at += received


def _start(connection: socket.socket, memory_bytes: int) -> "subprocess.Popen[bytes]":
    """Start the process with its end of the connection as standard input."""
    flags = ["-I"]  # neither the user's script nor variables of the environment decide what is imported
    flags += ["-X", "utf8"] if sys.flags.utf8_mode else []
    flags += ["-B"] if sys.flags.dont_write_bytecode else []
    return subprocess.Popen(
        [sys.executable, *flags, "-c", _CODE, str(memory_bytes), *_search_path()],
        stdin=connection.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_environment(os.environ),
        cwd="/",
        start_new_session=True,  # Ctrl-C is for the caller to answer
    )


def _search_path() -> list[str]:
    """Where modules are found here, in paths that do not depend on the working directory."""
    ours = str(Path(rsna_seq.__file__).resolve().parent.parent)
    there = [os.path.abspath(entry) for entry in sys.path if entry]  # noqa: PTH100  (no link is resolved)
    return there if ours in there else [*there, ours]


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The few variables that the process inherits; numpy's threads would only claim memory."""
    kept = {name: variables[name] for name in _ENVIRONMENT if name in variables}
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _ending(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None or code >= 0:
        return f"it ended with exit code {code}"
    return f"it was ended by signal {-code}"
