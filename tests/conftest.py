"""What tests share."""

from pathlib import Path

import pytest

REAL = Path(__file__).resolve().parent.parent.parent / "shared" / "real"


@pytest.fixture
def real() -> Path:
    """Real head CT beside the checkout; the test is skipped where it is absent."""
    if not REAL.is_dir():
        pytest.skip("no real head CT lies beside this checkout")
    return REAL
