"""Standard streams that a command can rely on: open, and never the reason that work is lost.

A shell may close them (``2>&-``), a reader may go away (``| head``), a terminal may vanish. Without this,
a file that a command opens could take the number of a closed stream, and what libraries print there would
be written into it.
"""

import contextlib
import io
import os
import select
import sys

_STDOUT, _STDERR = 1, 2


class _Lenient(io.FileIO):
    """A stream that drops what can no longer be read; standard error also what cannot be written now."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._number, self._told = number, False

    def write(self, data: object) -> int:
        """Write, or drop; returns how many bytes are done with."""
        size = memoryview(data).nbytes  # type: ignore[arg-type]
        while True:
            try:
                written = super().write(data)  # type: ignore[arg-type]
            except BrokenPipeError:
                return size
            except OSError:
                if self._number == _STDERR or self._told:
                    return size
                self._told = True  # once is enough: what is left is not tried again at the end
                raise
            if written is not None:
                return written
            if self._number == _STDERR:  # a full pipe that does not block
                return size
            select.select([], [self._number], [])


def secure_streams() -> None:
    """Open the standard streams that are closed, on the null device, and make printing lenient.

    A stream that was replaced within this process, as tests do, stays as it is.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
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
    """The text with control characters written out, so that no file name or cell steers a terminal."""
    return "".join(
        c if c.isprintable() or c in "\n " else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )
