"""The 12-bit wrap: negative stored values are 4096 too high; corrected only if the values prove it.

Signed values of some scanners were written as unsigned 12-bit values: air of -1000 HU is stored as 3096. The
header alone is no proof: with the same header, 3096 may be metal in an image whose air was clipped to 0.

1. :func:`may_be_wrapped`: the header cannot represent air; otherwise no values are checked.
2. :func:`judge`: the values of one slice prove the wrap, contradict it, or are inconclusive.
3. :func:`unwrapped`: subtract 4096 from values at and above air; then the header's rescale applies.

An inconclusive slice (only air, or no air) follows its series: ``pixels.series_is_wrapped``.
"""

import math
from enum import StrEnum

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.imaging.volume import AIR_HU

_BITS, _SPAN = 12, 4096
_INTERCEPT = -100
"""Unsigned slices with an intercept above this contain no air unless it wrapped (competition data)."""
_AIR, _AIR_TOP = -1000, -900
_SOFT = 200
"""Soft tissue is within this many HU of 0."""
_GAP = 512
"""Number of stored values below air that occur only in dense metal."""
_LEAST_AIR, _LEAST_SOFT, _LEAST_RING, _MOST_GAP = 0.1, 0.005, 0.5, 0.1
_LEAST_BELOW = 0.02
_LEAST_SIDE = 16


class Wrap(StrEnum):
    """Evidence of one slice for the 12-bit wrap."""

    PROVEN = "proven"
    OPEN = "open"
    CONTRADICTED = "contradicted"


def may_be_wrapped(bits_stored: int, *, signed: bool, slope: float, intercept: float) -> bool:
    """Whether the header cannot represent air, so that values may have wrapped."""
    return bits_stored == _BITS and not signed and slope > 0 and intercept > _INTERCEPT


def suspects() -> pl.Expr:
    """:func:`may_be_wrapped` for a table with the columns bits_stored, signed, slope and intercept."""
    valid = (pl.col("slope") > 0) & (pl.col("intercept") > _INTERCEPT)
    return (pl.col("bits_stored") == _BITS) & ~pl.col("signed") & valid


def judge(stored: NDArray[np.integer], *, slope: float, intercept: float, padding: int | None = None) -> Wrap:
    """Judge the values of one slice whose header passes :func:`may_be_wrapped`.

    The wrap is proven if all of these are true: a tenth of the slice has the values of wrapped air; so has
    the edge of the image; almost no pixel is in the 512 values below, where dense metal would be; and there
    is soft tissue. A slice whose air was clipped to 0 contradicts the wrap.

    Args:
        stored: (rows, columns) stored values.
        slope: RescaleSlope, above 0.
        intercept: RescaleIntercept, in HU.
        padding: PixelPaddingValue; such pixels are ignored.
    """
    if stored.ndim != 2 or min(stored.shape) < _LEAST_SIDE or not 0 <= stored.min() <= stored.max() < _SPAN:
        return Wrap.OPEN
    counts, ring = _counts(stored), _counts(_edge(stored))
    if padding is not None:
        counts[padding % _SPAN] = ring[padding % _SPAN] = 0
    total, around = max(1, int(counts.sum())), int(ring.sum())
    first, last = (_SPAN + _negative(hu, slope, intercept) for hu in (AIR_HU, _AIR_TOP))
    if first < _GAP or last <= first:
        return Wrap.OPEN
    air, gap = int(counts[first:last].sum()), int(counts[first - _GAP : first].sum())
    if counts[0] > max(air, _LEAST_AIR * total):
        return Wrap.CONTRADICTED
    if air < _LEAST_AIR * total or gap > _MOST_GAP * air or ring[first:last].sum() < _LEAST_RING * around:
        return Wrap.OPEN
    tissue = np.arange(math.ceil((-_SOFT - intercept) / slope), math.ceil((_SOFT - intercept) / slope))
    return Wrap.PROVEN if counts[tissue % _SPAN].sum() >= _LEAST_SOFT * total else Wrap.OPEN


def unwrapped(
    stored: NDArray[np.integer], *, slope: float, intercept: float, padding: int | None = None
) -> NDArray[np.int16]:
    """Correct the wrap: subtract 4096 from values at and above air, and set padding to air.

    Air starts at -1000 HU, as in the competition data (plus 1000, modulo 4096, minus 1000); but at -1024 HU
    if many pixels are just below -1000, because of noise around -1000.

    Args:
        stored: 12-bit values, any shape.
        slope: RescaleSlope, above 0.
        intercept: RescaleIntercept, in HU.
        padding: PixelPaddingValue.
    """
    low, air, high = (_SPAN + _negative(hu, slope, intercept) for hu in (AIR_HU, _AIR, 2 * _AIR - AIR_HU))
    below = np.count_nonzero((stored >= low) & (stored < air))
    above = np.count_nonzero((stored >= air) & (stored < high))
    padded = stored == padding % _SPAN if padding is not None else None
    values = stored.astype(np.int16)
    values[values >= (low if 8 * below > above and below > _LEAST_BELOW * stored.size else air)] -= _SPAN
    if padded is not None:
        values[padded] = _negative(AIR_HU, slope, intercept) - 1  # values below air become air
    return values


def _counts(stored: NDArray[np.integer]) -> NDArray[np.int64]:
    """Count how often each 12-bit value occurs."""
    return np.bincount(stored.ravel(), minlength=_SPAN)


def _edge(stored: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return the pixels at the image border."""
    return np.concatenate([stored[0], stored[-1], stored[1:-1, 0], stored[1:-1, -1]])


def _negative(hu: float, slope: float, intercept: float) -> int:
    """Return the lowest stored value at or above a HU value, limited to negative 12-bit values."""
    return min(0, max(-_SPAN, math.ceil((hu - intercept) / slope)))
