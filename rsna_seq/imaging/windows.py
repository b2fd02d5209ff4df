"""Windowing: map Hounsfield units to 0..1 by window level and width."""

import numpy as np
from numpy.typing import NDArray

from rsna_seq.errors import UsageError
from rsna_seq.settings.types import MAX_LEVEL_HU, MAX_WIDTH_HU, MIN_WIDTH_HU

WINDOWS: dict[str, tuple[float, float]] = {
    "brain": (40, 80),
    "subdural": (80, 200),
    "bone": (600, 2800),
}
"""Level and width in HU of common windows for head CT."""


def parse_windows(words: list[str]) -> tuple[tuple[float, float], ...]:
    """Parse one or three windows, by name (``brain``) or as ``LEVEL/WIDTH`` in HU.

    Raises:
        UsageError: An unknown name, a level or width out of bounds, or another number of windows.
    """
    windows = []
    for word in words:
        level, sign, width = word.partition("/")
        try:
            window = (float(level), float(width)) if sign else WINDOWS[word]
        except (KeyError, ValueError):
            raise UsageError(
                f"{word!r} is not a window; use {', '.join(WINDOWS)} or LEVEL/WIDTH, such as 40/80"
            ) from None
        windows.append(window)
    if len(windows) not in {1, 3}:
        raise UsageError(f"{' '.join(words)}: give one or three windows, not {len(windows)}")
    for centre, extent in windows:  # NaN is outside all bounds
        if not (abs(centre) <= MAX_LEVEL_HU and MIN_WIDTH_HU <= extent <= MAX_WIDTH_HU):
            raise UsageError(
                f"window {centre:g}/{extent:g}: the level must be within {MAX_LEVEL_HU:g} HU of 0, "
                f"and the width between {MIN_WIDTH_HU:g} and {MAX_WIDTH_HU:g} HU"
            )
    return tuple(windows)


def apply_window(hu: NDArray[np.generic], level: float, width: float) -> NDArray[np.float32]:
    """Map HU to 0..1: 0 at and below the lower end of the window, 1 at and above the upper end.

    Args:
        hu: HU, any shape.
        level: Centre of the window, in HU.
        width: Its width, in HU.
    """
    low = level - width / 2
    shown: NDArray[np.float32] = np.clip((hu.astype(np.float32) - low) / np.float32(width), 0, 1)
    return shown
