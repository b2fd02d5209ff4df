"""What the package says while a stage runs: log lines, and a progress bar with the remaining time."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rsna_seq.terminal.streams import printable

_LOG = logging.getLogger("rsna_seq")
_LOG_WIDTH = 100
"""Columns of a table if there is no terminal."""

_TERMINAL = sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
console = Console(stderr=True, highlight=False, soft_wrap=True, width=None if _TERMINAL else _LOG_WIDTH)
"""Messages go to standard error, so that standard output contains only tables and YAML."""


_SILENT: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silent() -> Iterator[None]:
    """Log nothing and show no progress in this block and thread; other threads are not affected."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar with an estimate of the remaining time.

    Args:
        title: What is being done, such as the stage's name.
        total: Total number of steps, or None if unknown.

    Yields:
        A function that advances the bar by the given number of steps.
    """
    if _SILENT.get() or not console.is_terminal or not _LOG.handlers:
        yield lambda _: None  # no bar in a log file, or for a library's caller
        return
    columns = (
        TextColumn("[bold]{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(task, steps)


def say(title: str, text: str) -> None:
    """Log one line under a stage's name, at level INFO of the logger ``rsna_seq``.

    Args:
        title: The stage's name, or an empty string.
        text: What happened; control characters are escaped.
    """
    if not _SILENT.get():
        _LOG.info("%s", printable(text), extra={"stage": title})


class _Lines(logging.Handler):
    """Prints log lines with the stage's name in front; markup in the text is not interpreted."""

    def emit(self, record: logging.LogRecord) -> None:
        console.print(f"[bold cyan]{getattr(record, 'stage', ''):<10}[/] ", end="")
        console.print(record.getMessage(), markup=False)


def show_log() -> None:
    """Print log lines and progress bars: the command line does so, a library does not."""
    _LOG.setLevel(logging.INFO)
    _LOG.propagate = False
    if not _LOG.handlers:
        _LOG.addHandler(_Lines())
