"""Paths that users name, checked before any work begins."""

from pathlib import Path

from rsna_seq.errors import UsageError


def require_file(path: Path, what: str) -> Path:
    """The path, where it is a file that can be read.

    Args:
        path: What a user named.
        what: The option or config key that named it.

    Raises:
        UsageError: It is not there, is a folder, or cannot be read.
    """
    try:
        if not path.is_file():
            kind = "is no regular file" if path.exists() else "there is no such file"
            raise UsageError(f"{what}: {path}: {'is a folder, not a file' if path.is_dir() else kind}")
        with path.open("rb"):
            return path
    except (OSError, ValueError) as error:
        raise UsageError(f"{what}: {_short(path)}: {getattr(error, 'strerror', None) or error}") from None


def require_folder(path: Path, what: str) -> Path:
    """The path, where a folder is or can be made.

    Args:
        path: A folder that a command writes into; it need not exist.
        what: The option that named it.

    Raises:
        UsageError: It is a file, or lies below one.
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
    raise UsageError(f"{what}: {path}: lies below {nearest}, which is a file; choose another folder")


def exists(path: Path) -> bool:
    """Whether something is there; False for what cannot be a path."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 200 else f"{text[:200]}..."
