"""Shared fixtures."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from rsna_seq import console

console.show_log()  # tests read what a user of the command line reads
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("drawn", deadline=None)
settings.load_profile("repeatable")  # the same examples in every run; `make soak` draws others

REAL = Path(os.environ.get("RSNA_SEQ_REAL", Path(__file__).resolve().parents[2] / "shared" / "real"))
"""Real head CT for checks; the environment variable names another folder."""


@pytest.fixture
def real() -> Path:
    """Real head CT beside the checkout; the test is skipped where it is absent."""
    if not REAL.is_dir():
        pytest.skip("no real head CT lies beside this checkout")
    return REAL
