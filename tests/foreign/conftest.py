"""The table of the foreign corpora, printed at the end of a test run."""

from collections import defaultdict
from typing import Any

import pytest

_HEAD = ("corpus", "files", "read", "fast", "HU compared", "equal", "index exit", "excluded by reason")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each corpus, and the sums."""
    reports = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]
    corpora: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for report in reports:
        for name, value in getattr(report, "user_properties", []):
            if name == "corpus":
                corpora[value[0]][value[1]] = value[2]
    if not corpora:
        return
    terminalreporter.section("foreign corpora")
    rows = [_row(name, found) for name, found in corpora.items()]
    sums = [sum(row[i] for row in rows if isinstance(row[i], int)) for i in range(1, 6)]
    for row in (_HEAD, *rows, ("all", *sums, "", "")):
        terminalreporter.line("{:20} {:>6} {:>5} {:>5} {:>11} {:>6} {:>10}  {}".format(*row))


def _row(name: str, found: dict[str, dict[str, Any]]) -> tuple[Any, ...]:
    alone, index = found.get("alone", {}), found.get("index", {})
    counts = [alone.get(key, "-") for key in ("files", "read", "fast", "compared", "equal")]
    reasons = alone.get("reasons") or index.get("reasons", {})
    words = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items(), key=lambda r: -r[1]))
    return name, *counts, index.get("code", "-"), words
