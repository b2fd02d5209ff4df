"""Summary of a command as one JSON object on standard output, for ``--json``."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VERSION = 1
"""Increases when a program that reads summaries must change."""


def print_summary(command: str, values: Mapping[str, Any]) -> None:
    """Print one line of JSON; everything else that a command says goes to standard error.

    Args:
        command: Name of the command.
        values: Plain data and paths.
    """
    whole = {"schema_version": VERSION, "command": command, **values}
    print(json.dumps(whole, default=_plain, allow_nan=False), file=sys.stdout, flush=True)


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not plain data")
