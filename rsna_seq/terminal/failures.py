"""How a command ends that failed: one plain sentence on standard error, and an exit code of the README.

A traceback is for developers. It goes to a file, without any message or value, since both quote what was
read; ``RSNA_SEQ_TRACEBACK=1`` shows it whole.
"""

import errno
import os
import sys
import traceback
from pathlib import Path

from rsna_seq.errors import EnvironmentFaultError, RsnaSeqError, UsageError
from rsna_seq.terminal.streams import printable

_BUG, _INTERRUPTED = 1, 130
_SHOW = "RSNA_SEQ_TRACEBACK"
_PATHS = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
"""What a wrong path leads to; every other error of a file or device is the machine's."""
_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc")
"""How libraries that raise other errors say that memory has ended."""


def tell(error: BaseException) -> int:
    """Print what happened and what to do.

    Args:
        error: What ended the command.

    Returns:
        The exit code.
    """
    if os.environ.get(_SHOW, "0") not in {"", "0"}:
        traceback.print_exception(error)
    code, words = _verdict(error)
    print(f"rsna-seq: {printable(words)}", file=sys.stderr, flush=True)
    return code


def frames(error: BaseException) -> str:
    """A traceback without values: files, lines, functions and the types of errors, never their messages."""
    parts, seen = [], set[int]()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        lines = [f"{f.filename}:{f.lineno} in {f.name}" for f in traceback.extract_tb(step.__traceback__)]
        parts.append("\n".join([*lines, f"{type(step).__module__}.{type(step).__qualname__}"]))
        step = step.__cause__ or step.__context__
    return "\n\ncaused by\n\n".join(parts) + "\n"


def _verdict(error: BaseException) -> tuple[int, str]:
    """Exit code and sentence."""
    if isinstance(error, RsnaSeqError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED, "interrupted; the same command goes on from here"
    if _is_memory(error):
        return EnvironmentFaultError.exit_code, (
            "the memory of this machine is used up; close other programs, or use fewer workers (workers=1), "
            "smaller batches or a smaller size"
        )
    if isinstance(error, OSError) and error.errno is not None:
        place = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else "no file named"
        code = UsageError.exit_code if error.errno in _PATHS else EnvironmentFaultError.exit_code
        return code, f"{error.strerror or os.strerror(error.errno)}: {place}; no half-written file stays"
    code = EnvironmentFaultError.exit_code if isinstance(error, OSError) else _BUG
    return code, f"{_unexpected(error)}. {_SHOW}=1 shows the whole traceback, which may quote patient data"


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY)


def _unexpected(error: BaseException) -> str:
    """What is said of a fault that nobody foresaw, and where its traceback lies."""
    import tempfile

    what = f"an unexpected error ({type(error).__name__}); this is a fault of rsna_seq"
    try:
        handle, name = tempfile.mkstemp(prefix="rsna-seq-", suffix=".txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123
            file.write(frames(error))
    except OSError:
        return f"{what}. Please report it to its issue tracker with these lines:\n{frames(error)}"
    return f"{what}. Please report it to its issue tracker with {Path(name)}, which holds no patient data"
