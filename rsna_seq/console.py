"""What the user sees while a stage runs: progress with the time left, and one closing line."""

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
"""Columns of a table where there is no terminal."""

_TERMINAL = sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
console = Console(stderr=True, highlight=False, soft_wrap=True, width=None if _TERMINAL else _LOG_WIDTH)
"""Words for people go to standard error, so that standard output stays clean for tables and YAML."""


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar with an estimate of the time left.

    Args:
        title: What is being done, such as the stage's name.
        total: Steps in all, or None where that is unknown.

    Yields:
        A function that advances the bar by so many steps.
    """
    columns = (
        TextColumn("[bold]{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    quiet = not console.is_terminal  # a log wants lines, not a bar
    with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(task, steps)


def say(title: str, text: str) -> None:
    """Print one line under a stage's name; markup and control characters in the text are shown as text."""
    console.print(f"[bold cyan]{title:<10}[/] ", end="")
    console.print(printable(text), markup=False)
