"""What the corpus came to, for the table at the end of a test run."""

CASES: list[tuple[int, str, str, int]] = []
"""Number, title, what it left, exit code: of each bad input that was answered rightly."""
FAULTS: dict[int, str] = {}
"""Number and title of each fault that was borne."""
