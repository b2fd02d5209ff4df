"""Terminal output while a stage runs: a progress bar with the remaining time, and a final summary line."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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

_LOG_WIDTH = 100
"""Columns of a table if there is no terminal."""

_TERMINAL = sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
console = Console(stderr=True, highlight=False, soft_wrap=True, width=None if _TERMINAL else _LOG_WIDTH)
"""Messages go to standard error, so that standard output contains only tables and YAML."""


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar with an estimate of the remaining time.

    Args:
        title: What is being done, such as the stage's name.
        total: Total number of steps, or None if unknown.

    Yields:
        A function that advances the bar by the given number of steps.
    """
    columns = (
        TextColumn("[bold]{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    quiet = not console.is_terminal  # no bar in a log file
    with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(task, steps)


def say(title: str, text: str) -> None:
    """Print one line with a stage's name in front; markup and control characters in the text are escaped."""
    console.print(f"[bold cyan]{title:<10}[/] ", end="")
    console.print(printable(text), markup=False)
