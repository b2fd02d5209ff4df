"""Checks of user-supplied paths, before any work starts."""

from pathlib import Path

from rsna_seq.errors import UsageError


def require_file(path: Path, what: str) -> Path:
    """Return the path if it is a readable file.

    Args:
        path: A path given by the user.
        what: The option or config key that the path comes from.

    Raises:
        UsageError: The file does not exist, is a folder, or cannot be read.
    """
    try:
        if not path.is_file():
            kind = "is not a regular file" if path.exists() else "no such file"
            raise UsageError(f"{what}: {path}: {'is a folder, not a file' if path.is_dir() else kind}")
        with path.open("rb"):
            return path
    except (OSError, ValueError) as error:
        raise UsageError(f"{what}: {_short(path)}: {getattr(error, 'strerror', None) or error}") from None


def require_folder(path: Path, what: str) -> Path:
    """Return the path if it is a folder or can be created as one.

    Args:
        path: A folder that a command writes to; it need not exist.
        what: The option that the path comes from.

    Raises:
        UsageError: The path is a file, or one of its parents is.
    """
    try:
        nearest = next(
            (place for place in (path, *path.parents) if place.is_symlink() or place.exists()), None
        )
        if nearest is None or nearest.is_dir():
            return path
    except (OSError, ValueError) as error:
        raise UsageError(f"{what}: {_short(path)}: {getattr(error, 'strerror', None) or error}") from None
    if nearest == path:
        raise UsageError(f"{what}: {path}: is a file, not a folder; choose another folder")
    raise UsageError(f"{what}: {path}: its parent {nearest} is a file; choose another folder")


def exists(path: Path) -> bool:
    """Whether the path exists; False if it is not a valid path."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 200 else f"{text[:200]}..."
