"""Compressed pixels, decoded in a process of their own that is limited in memory and CPU time.

A codec is native code that is fed with whatever a file holds. A codestream that crashes it, or keeps it
busy, or makes it ask for all memory, costs that file and nothing else: the process is replaced and the
file named. A machine without free processors or memory costs no file: only the CPU time of the decoding
itself is limited, and what failed that way is tried a second time.
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
"""CPU time that a frame may take; one of 512 x 512 takes a few hundredths of a second."""
WALL_S = 300.0
"""Time after which a process that does not answer and uses no CPU time, such as a stopped one, is ended."""
START_S = 300.0
"""Time in which the process must be ready; it takes a second where a processor is free."""
MEMORY_BYTES = 1 << 30
"""What the process may allocate on top of what it has when it is ready."""
_PACKAGES = "python-gdcm pylibjpeg pylibjpeg-openjpeg pyjpegls"


class Decoder:
    """A process that decodes one frame at a time; it is started when first needed, and again when it died.

    Threads may share a decoder: they wait for one another. A forked process starts one of its own.

    Args:
        patience_s: Seconds of CPU time that a frame may take.
        memory_bytes: What the process may allocate.
        wall_s: Seconds after which a process that does not answer is ended.
        start_s: Seconds in which the process must be ready.
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
        """Number of the process that decodes; None where none was started."""
        return None if self._process is None else self._process.pid

    def decode(
        self, path: str, frame: int, shape: tuple[int, int], out: NDArray[np.int16] | None = None
    ) -> NDArray[np.integer]:
        """Stored values of one frame, (rows, columns).

        A frame on which the process takes too long or dies is tried once more, alone in a new process.

        Args:
            path: A file, or a member of an archive.
            frame: Number of the frame, from 0.
            shape: Rows and columns that the header names.
            out: (rows, columns), contiguous: memory for the values, used where they have 16 bits.

        Raises:
            ExclusionError: The pixels cannot be decoded, the process died on them, or took too long.
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
        """Ask the process, which is started where there is none."""
        if self._process is None or not self._process.alive:
            if self._process is not None:
                self._process.end()
            self._process = None
            self._process = CodecProcess(self.memory_bytes, self.start_s)
        limits = {"cpu_s": self.patience_s, "wall_s": self.wall_s}
        return self._process.exchange(path, frame, shape, out, **limits)


def must_not_be_timeouts(stage: str, reasons: Iterable[object]) -> None:
    """Refuse to call an input unusable that was lost to the clock.

    Args:
        stage: The stage in which no slice could be read.
        reasons: Why each was not.

    Raises:
        EnvironmentFaultError: Decoding some of them took too long.
    """
    late = sum(reason == Reason.DECODE_TIMEOUT for reason in reasons)
    if late:
        raise EnvironmentFaultError(
            f"{stage}: no slice could be read; decoding took too long for {late:,}, twice each (more than "
            f"{PATIENCE_S:g} s of CPU time, or no answer in {WALL_S:g} s): run the same command again when "
            "the machine has less other work, and check that the disk that holds the files answers"
        )


@cache
def shared_decoder() -> Decoder:
    """The decoder of this process."""
    decoder = Decoder()
    atexit.register(decoder.close)
    return decoder


def _forget(decoder: Decoder | None) -> None:
    """In a forked process: leave the process to the parent, and its lock to whichever thread holds it."""
    if decoder is not None:
        decoder._lock = threading.Lock()
        if decoder._process is not None:
            decoder._process.forget()
            decoder._process = None
