"""What tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("drawn", deadline=None)
settings.load_profile("repeatable")  # the same examples in every run; `make soak` draws others

REAL = Path(__file__).resolve().parent.parent.parent / "shared" / "real"


@pytest.fixture
def real() -> Path:
    """Real head CT beside the checkout; the test is skipped where it is absent."""
    if not REAL.is_dir():
        pytest.skip("no real head CT lies beside this checkout")
    return REAL
