"""Standard streams that are always open and never make a command fail.

A shell may close them (``2>&-``), a reader may exit (``| head``), a terminal may be closed. Without this
module, a file that a command opens could get the file descriptor of a closed stream, and library output to
that stream would be written into the file.
"""

import contextlib
import io
import os
import select
import sys

_STDOUT, _STDERR = 1, 2


class _Lenient(io.FileIO):
    """A stream that drops output after its reader has exited; standard error never blocks or fails."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._number, self._reported = number, False

    def write(self, data: object) -> int:
        """Write or drop the data; return the number of bytes handled."""
        size = memoryview(data).nbytes  # type: ignore[arg-type]
        while True:
            try:
                written = super().write(data)  # type: ignore[arg-type]
            except BrokenPipeError:
                return size
            except OSError:
                if self._number == _STDERR or self._reported:
                    return size
                self._reported = True  # report once: the rest is not written again at exit
                raise
            if written is not None:
                return written
            if self._number == _STDERR:  # the pipe is full and non-blocking
                return size
            select.select([], [self._number], [])


def secure_streams() -> None:
    """Open closed standard streams on the null device, and make printing tolerant of errors.

    A stream that was replaced within this process, as tests do, is not changed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # returns the lowest free descriptor, which is this one
            os.set_inheritable(number, True)
    for name, number in (("stdout", _STDOUT), ("stderr", _STDERR)):
        old = getattr(sys, name)
        if old is not None and old is not getattr(sys, f"__{name}__"):
            continue
        if old is not None:
            with contextlib.suppress(OSError):
                old.flush()
        encoding = getattr(old, "encoding", None) or "utf-8"
        raw = io.BufferedWriter(_Lenient(number))
        setattr(
            sys,
            name,
            io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", line_buffering=True),
        )


def printable(text: str) -> str:
    """Escape control characters, so that file names and cells cannot control the terminal."""
    return "".join(
        c if c.isprintable() or c in "\n " else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )
