"""Results of the tests of bad inputs and faults, for the table at the end of a test run."""

NOTED: list[tuple[str | int, ...]] = []
"""Results noted since the last report."""


def answered(number: int, title: str, left: str, code: int) -> None:
    """Note a bad input that was handled as it must be: what it left, and the exit code."""
    NOTED.append(("case", number, title, left, code))


def handled(number: int, title: str) -> None:
    """Note a fault of the machine that was handled as it must be."""
    NOTED.append(("fault", number, title))
