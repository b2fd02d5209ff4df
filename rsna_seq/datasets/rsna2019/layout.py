"""Find the competition's files in common folder layouts."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths of the competition's files; None for files that do not exist."""

    train: Path | None
    test: Path | None
    labels: Path | None
    sample: Path | None


def find_layout(root: Path, stage: int) -> Layout:
    """Find the image folders and CSV files of one stage: as downloaded, or under ``RSNA/stage_N``.

    Args:
        root: Root folder of the data.
        stage: Stage of the competition, 1 or 2.
    """
    name = f"stage_{stage}"
    places = (root, root / name, root / "RSNA" / name)
    return Layout(
        train=_first(places, f"{name}_train", f"{name}_train_images", folder=True),
        test=_first(places, f"{name}_test", f"{name}_test_images", folder=True),
        labels=_first(places, f"{name}_train.csv", folder=False),
        sample=_first(places, f"{name}_sample_submission.csv", folder=False),
    )


def _first(places: tuple[Path, ...], *names: str, folder: bool) -> Path | None:
    candidates = (place / name for place in places for name in names)
    return next((c for c in candidates if (c.is_dir() if folder else c.is_file())), None)
