"""What a test of the corpus came to, for the table at the end of a run."""

NOTED: list[tuple[str | int, ...]] = []
"""Since the last report: what was noted."""


def answered(number: int, title: str, left: str, code: int) -> None:
    """Note a bad input that was answered rightly: what it left, and the exit code."""
    NOTED.append(("case", number, title, left, code))


def borne(number: int, title: str) -> None:
    """Note a fault that was borne."""
    NOTED.append(("fault", number, title))
