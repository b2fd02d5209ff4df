"""The corpus' table, printed at the end of a test run; and the command line, in this process."""

import sys
from collections.abc import Callable

import ledger
import pytest

Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run a command as a user does: its exit code, and everything that it printed."""

    def run(*words: object) -> tuple[int, str]:
        from rsna_seq.__main__ import main

        monkeypatch.setattr(sys, "argv", ["rsna-seq", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = capfd.readouterr()
        return int(end.value.code or 0), printed.out + printed.err

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print case, what it left, and exit code."""
    if not ledger.CASES and not ledger.FAULTS:
        return
    terminalreporter.section("bad inputs and faults")
    for number, title, left, code in sorted(ledger.CASES):
        terminalreporter.line(f"{number:3}  {title:58.58}  {left:42.42}  {code}")
    for number, title in sorted(ledger.FAULTS.items()):
        terminalreporter.line(f"fault {number:2}  {title}")
    cases = len({number for number, *_ in ledger.CASES})
    terminalreporter.line(f"{cases} of 50 bad inputs, {len(ledger.FAULTS)} of 17 faults")
