"""End a failed command: one sentence on standard error, and one of the exit codes of the README.

The traceback is written to a file without messages and values, since both may quote patient data;
``RSNA_SEQ_TRACEBACK=1`` prints the complete traceback.
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
"""Error numbers caused by a wrong path; all other file errors are faults of the environment."""
_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc")
"""Phrases by which libraries report exhausted memory in other exception types."""


def tell(error: BaseException) -> int:
    """Print what happened and what to do.

    Args:
        error: The exception that ended the command.

    Returns:
        The exit code.
    """
    if os.environ.get(_SHOW, "0") not in {"", "0"}:
        traceback.print_exception(error)
    code, words = _verdict(error)
    print(f"rsna-seq: {printable(words)}", file=sys.stderr, flush=True)
    return code


def frames(error: BaseException) -> str:
    """Format a traceback without values: files, lines, functions and types of errors, never messages."""
    parts, seen = [], set[int]()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        lines = [f"{f.filename}:{f.lineno} in {f.name}" for f in traceback.extract_tb(step.__traceback__)]
        parts.append("\n".join([*lines, f"{type(step).__module__}.{type(step).__qualname__}"]))
        step = step.__cause__ or step.__context__
    return "\n\ncaused by\n\n".join(parts) + "\n"


def _verdict(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the sentence."""
    if isinstance(error, RsnaSeqError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED, "interrupted; run the same command again to resume"
    if _is_memory(error):
        return EnvironmentFaultError.exit_code, (
            "out of memory; close other programs, or use fewer workers (workers=1), "
            "a smaller batch size or a smaller image size"
        )
    if isinstance(error, OSError) and error.errno is not None:
        place = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else "no file named"
        code = UsageError.exit_code if error.errno in _PATHS else EnvironmentFaultError.exit_code
        return code, f"{error.strerror or os.strerror(error.errno)}: {place}; no partial file is left"
    code = EnvironmentFaultError.exit_code if isinstance(error, OSError) else _BUG
    return (
        code,
        f"{_unexpected(error)}. Set {_SHOW}=1 to print the complete traceback, which may quote patient data",
    )


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY)


def _unexpected(error: BaseException) -> str:
    """Return the message for an unexpected error, with the path of its traceback."""
    import tempfile

    what = f"an unexpected error ({type(error).__name__}); this is a bug in rsna_seq"
    try:
        handle, name = tempfile.mkstemp(prefix="rsna-seq-", suffix=".txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123
            file.write(frames(error))
    except OSError:
        return f"{what}. Please report it on the issue tracker with these lines:\n{frames(error)}"
    return f"{what}. Please report it on the issue tracker with {Path(name)}, which contains no patient data"
