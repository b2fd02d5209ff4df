"""The corpus' table, printed at the end of a test run; and the command line, in this process."""

import sys
from collections.abc import Callable, Generator
from pathlib import Path

import ledger
import pytest
from dicoms import write_set

Cli = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled set of six studies; nothing writes to it."""
    return write_set(tmp_path_factory.mktemp("data"), studies=6, test_studies=0)


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send what a test noted along with its report: tests may run in several processes."""
    report = yield
    report.user_properties += [("ledger", entry) for entry in ledger.NOTED]
    ledger.NOTED.clear()
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print case, what it left, and exit code; and the faults."""
    passed = terminalreporter.stats.get("passed", [])
    noted = [value for report in passed for name, value in report.user_properties if name == "ledger"]
    if not noted:
        return
    terminalreporter.section("bad inputs and faults")
    cases = sorted(tuple(entry[1:]) for entry in noted if entry[0] == "case")
    faults = dict(sorted(tuple(entry[1:]) for entry in noted if entry[0] == "fault"))
    for number, title, left, code in cases:
        terminalreporter.line(f"{number:3}  {title:58.58}  {left:42.42}  {code}")
    for number, title in faults.items():
        terminalreporter.line(f"fault {number:2}  {title}")
    terminalreporter.line(f"{len({c[0] for c in cases})} of 50 bad inputs, {len(faults)} of 17 faults")
