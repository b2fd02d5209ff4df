"""Compressed pixels, decoded in a process of their own that is limited in memory and time.

A codec is native code that is fed with whatever a file holds. A codestream that crashes it, or keeps it
busy, or makes it ask for all memory, costs that file and nothing else: the process is replaced and the
file named.
"""

import atexit
import multiprocessing
import os
import resource
import warnings
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.imaging.sources import open_file
from rsna_seq.reasons import Reason, SetAsideError

PATIENCE_S = 20.0
"""A slice of 512 x 512 takes a hundredth of a second."""
MEMORY_BYTES = 1 << 30
"""What a decoder may ask for on top of what it has when it starts."""
_PACKAGES = "python-gdcm pylibjpeg pylibjpeg-openjpeg pyjpegls"


class Decoder:
    """A process that decodes one frame at a time; it is started when first needed, and anew when it died.

    Args:
        patience_s: Seconds that a frame may take.
        memory_bytes: What the process may ask for.
    """

    def __init__(self, patience_s: float = PATIENCE_S, memory_bytes: int = MEMORY_BYTES) -> None:
        self.patience_s, self.memory_bytes = patience_s, memory_bytes
        self._process: Any = None
        self._pipe: Connection | None = None

    def decode(self, path: str, frame: int, shape: tuple[int, int]) -> NDArray[np.integer]:
        """Stored values of one frame, (rows, columns).

        Args:
            path: A file, or a member of an archive.
            frame: Number of the frame, from 0.
            shape: Rows and columns that the header names.

        Raises:
            SetAsideError: The pixels cannot be decoded, the process died on them, or took too long.
            EnvironmentFaultError: The codec that they need is not installed.
        """
        pipe = self._started()
        try:
            pipe.send((path, frame))
            if not pipe.poll(self.patience_s):
                self.close()
                raise SetAsideError(Reason.DECODE_TIMEOUT, f"more than {self.patience_s:g} s")
            kind, answer = pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            self.close()
            raise SetAsideError(Reason.WORKER_DIED) from error
        if kind == "missing":
            raise EnvironmentFaultError(f"{answer} For the common codecs: pip install {_PACKAGES}")
        if kind == "fault":
            raise SetAsideError(Reason.PIXELS_UNDECODABLE, answer)
        pixels: NDArray[np.integer] = answer
        if pixels.shape != shape:
            raise SetAsideError(Reason.PIXELS_UNDECODABLE, f"{pixels.shape} pixels, {shape} in the header")
        return pixels

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _started(self) -> Connection:
        if self._pipe is None or not self._process.is_alive():
            self.close()
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self.memory_bytes), daemon=True)
            self._process.start()
            theirs.close()
        return self._pipe


@cache
def shared_decoder() -> Decoder:
    """The decoder of this process."""
    decoder = Decoder()
    atexit.register(decoder.close)
    return decoder


def _serve(pipe: Connection, memory_bytes: int) -> None:
    """Decode frames until the other end is closed; what runs in the process."""
    import pydicom.pixels  # before the limit: libraries are not the file's fault

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # codecs talk to standard error, a line a fault
    pages = int(open("/proc/self/statm").read().split()[0]) if os.path.exists("/proc/self/statm") else 0  # noqa
    limit = pages * resource.getpagesize() + memory_bytes
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while True:
        try:
            path, frame = pipe.recv()
        except EOFError:
            return
        pipe.send(_answer(pydicom.pixels, path, frame))


def _answer(pixels: Any, path: str, frame: int) -> tuple[str, object]:
    """Decode one frame: ``pixels`` and the array, or ``fault`` or ``missing`` and why."""
    try:
        with open_file(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return "pixels", np.ascontiguousarray(pixels.pixel_array(file, index=frame, raw=True))
    except RuntimeError as error:
        if "missing dependencies" in str(error) or "plugins are missing" in str(error):
            return "missing", str(error)
        return "fault", type(error).__name__
    except Exception as error:  # a damaged codestream raises anything
        return "fault", type(error).__name__
