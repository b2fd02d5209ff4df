"""The list of bad inputs that lie in one folder with good studies, and helpers that write them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicoms import write_slice

Build = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        number: Its number in the list of bad inputs.
        title: What it is.
        build: Writes it into a folder of its own.
        reasons: Reasons that its files must leave in ``quarantine.parquet``, sorted.
        read: Slices of it that are read all the same.
        flags: Flags of its study.
    """

    number: int
    title: str
    build: Build
    reasons: tuple[str, ...] = ()
    read: int = 0
    flags: str = ""


CASES: list[Case] = []


def case(number: int, title: str, *reasons: str, read: int = 0, flags: str = "") -> Callable[[Build], Build]:
    """Put a builder on the list."""

    def take(build: Build) -> Build:
        CASES.append(Case(number, title, build, tuple(sorted(reasons)), read, flags))
        return build

    return take


def one(folder: Path, name: str = "a", **elements: Any) -> Path:
    """One slice of a study of its own, named after the folder."""
    about = {"study": f"ID_study_{folder.name}", "patient": f"ID_patient_{folder.name}", **elements}
    return write_slice(folder, f"{folder.name}_{name}", **about)


def some(folder: Path, places: list[float], **elements: Any) -> list[Path]:
    """Slices of one study at some places."""
    return [
        one(folder, f"{elements.get('prefix', '')}{i:04d}", z=z, **_without(elements))
        for i, z in enumerate(places)
    ]


def _without(elements: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in elements.items() if k != "prefix"}


def patched(path: Path, old: bytes, new: bytes) -> Path:
    """Replace bytes by as many others: what pydicom would not write."""
    data = path.read_bytes()
    assert old in data
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new))
    return path
