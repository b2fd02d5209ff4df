"""Decode compressed pixels in a separate process with limited memory and CPU time.

Codecs are native code that reads untrusted data. If a codestream crashes the codec, takes too long or
requests too much memory, only that file is excluded: the process is restarted and the file is reported. A
busy machine excludes no file: only the CPU time of the decoding itself is limited, and a failed frame is
tried again once.
"""

import atexit
import os
import threading
import weakref
from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.imaging.codec_process import Answer, CodecProcess, LostError
from rsna_seq.imaging.codec_server import Status
from rsna_seq.reasons import ExclusionError, Reason

PATIENCE_S = 20.0
"""Limit of CPU time per frame; a frame of 512 x 512 takes a few hundredths of a second."""
WALL_S = 300.0
"""Time after which a process that does not reply and uses no CPU time, such as a stopped one, is ended."""
START_S = 300.0
"""Time within which the process must be ready; on an idle machine this takes one second."""
MEMORY_BYTES = 1 << 30
"""Memory that the process may allocate in addition to what it uses when it is ready."""
_PACKAGES = "python-gdcm pylibjpeg pylibjpeg-openjpeg pyjpegls"


class Decoder:
    """A process that decodes one frame at a time; it is started on first use and restarted if it died.

    Threads may share a decoder, which decodes one frame at a time. A forked process starts its own.

    Args:
        patience_s: Limit of CPU time per frame, in seconds.
        memory_bytes: Memory that the process may allocate.
        wall_s: Seconds after which a process that does not reply is ended.
        start_s: Seconds within which the process must be ready.
    """

    def __init__(
        self,
        patience_s: float = PATIENCE_S,
        memory_bytes: int = MEMORY_BYTES,
        *,
        wall_s: float = WALL_S,
        start_s: float = START_S,
    ) -> None:
        self.patience_s, self.memory_bytes = patience_s, memory_bytes
        self.wall_s, self.start_s = wall_s, start_s
        self._lock = threading.Lock()
        self._process: CodecProcess | None = None
        me = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(me()))

    @property
    def pid(self) -> int | None:
        """Process id of the decoding process; None if it is not running."""
        return None if self._process is None else self._process.pid

    def decode(
        self, path: str, frame: int, shape: tuple[int, int], out: NDArray[np.int16] | None = None
    ) -> NDArray[np.integer]:
        """Decode the stored values of one frame, (rows, columns).

        If the process takes too long or dies, the frame is tried once more in a new process.

        Args:
            path: A file, or a member of an archive.
            frame: Number of the frame, from 0.
            shape: Rows and columns from the header.
            out: (rows, columns), contiguous array for the values, used if they have 16 bits.

        Raises:
            ExclusionError: The pixels cannot be decoded, or the process died or took too long twice.
            EnvironmentFaultError: The process cannot be started, or the codec is not installed.
        """
        place = path if os.path.isabs(path) else os.path.abspath(path)  # noqa: PTH100, PTH117
        with self._lock:
            try:
                status, answer = self._exchange(place, frame, shape, out)
            except LostError:
                try:
                    status, answer = self._exchange(place, frame, shape, out)
                except LostError as lost:
                    raise ExclusionError(lost.reason, f"{lost.detail}, twice") from lost
        if status == Status.MISSING:
            raise EnvironmentFaultError(f"{answer} For the common codecs: pip install {_PACKAGES}")
        if isinstance(answer, str) and status == Status.REFUSED:
            reason, _, detail = answer.partition("\n")
            raise ExclusionError(
                Reason(reason) if reason in set(Reason) else Reason.PIXELS_UNDECODABLE, detail
            )
        if isinstance(answer, str):
            raise ExclusionError(Reason.PIXELS_UNDECODABLE, answer)
        return answer

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._process is not None:
                self._process.end()
                self._process = None

    def _exchange(
        self, path: str, frame: int, shape: tuple[int, int], out: NDArray[np.int16] | None
    ) -> Answer:
        """Send a request to the process, which is started if it is not running."""
        if self._process is None or not self._process.alive:
            if self._process is not None:
                self._process.end()
            self._process = None
            self._process = CodecProcess(self.memory_bytes, self.start_s)
        limits = {"cpu_s": self.patience_s, "wall_s": self.wall_s}
        return self._process.exchange(path, frame, shape, out, **limits)


def must_not_be_timeouts(stage: str, reasons: Iterable[object]) -> None:
    """Raise an environment error if slices were lost because decoding timed out.

    Args:
        stage: The stage in which no slice could be read.
        reasons: The reason of each slice.

    Raises:
        EnvironmentFaultError: Decoding timed out for at least one slice.
    """
    late = sum(reason == Reason.DECODE_TIMEOUT for reason in reasons)
    if late:
        raise EnvironmentFaultError(
            f"{stage}: no slice could be read; decoding timed out twice for {late:,} of them (more than "
            f"{PATIENCE_S:g} s of CPU time, or no reply in {WALL_S:g} s): run the same command again when "
            "the machine is less busy, and check that the disk with the files is accessible"
        )


@cache
def shared_decoder() -> Decoder:
    """The decoder of this process."""
    decoder = Decoder()
    atexit.register(decoder.close)
    return decoder


def _forget(decoder: Decoder | None) -> None:
    """In a forked process: release the decoding process, which belongs to the parent, and its lock."""
    if decoder is not None:
        decoder._lock = threading.Lock()
        if decoder._process is not None:
            decoder._process.forget()
            decoder._process = None
