"""A finished run, and ``predict`` in this process."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import cli
from dicoms import write_set
from tiny_run import WITH_JOINT

from rsna_seq.__main__ import main


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run ``predict`` in this process; it ends with ``code``, and what it printed is returned."""

    def run(*words: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["rsna-seq", "predict", *map(str, words), "device=cpu", "workers=1"])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = capfd.readouterr()
        assert int(end.value.code or 0) == code, printed.err
        return printed.out + printed.err

    return run


@pytest.fixture(scope="session")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run on a tiny set with one training file and one test file cut short."""
    root = tmp_path_factory.mktemp("set")
    write_set(root / "data")
    for folder in ("stage_2_train", "stage_2_test"):
        file = sorted((root / "data" / folder).glob("*.dcm"))[1]
        file.write_bytes(file.read_bytes()[:4000])
    cli("run", "--out", root / "run", f"data.root={root / 'data'}", *WITH_JOINT)
    return root
