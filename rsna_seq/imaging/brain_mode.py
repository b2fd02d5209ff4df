"""The mode of brain tissue of a pass in HU, and the shift that brings it to a nominal value.

HU are not the same on every scanner: the mode of brain tissue in 17 real studies lies between 24 and 43 HU.

1. Six slabs of the upper half (above the skull base and the face), reduced to 64 x 64.
2. Pixels whose 3 x 3 neighbourhood is soft tissue, so neither scalp nor edges of bone and air; the average of
   the neighbourhood, which removes most of the noise.
3. Their histogram from 5 to 65 HU, smoothed; the highest of its peaks, weighted by distance from normal
   brain, so that wide ventricles or a large bleed are not taken for brain; its position by a parabola.
"""

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

_SLABS = 6
_SIDE = 64
"""Rows and columns to which a slab is reduced: pixels of 3 to 4 mm."""
_SOFT_HU = (-40, 130)
"""Range of the neighbourhood of a counted pixel: includes CSF and clots, with noise."""
_LOW_HU, _HIGH_HU = 5, 65
"""Range of the histogram: lower values are CSF and fat, higher ones clots."""
_MARGIN_HU = 15
"""Pixels this far outside the range still count in the smoothing, so that it has no edge there."""
_SMOOTH_HU = 4.0
"""Standard deviation of the smoothing: white and grey matter, about 8 HU apart, become one peak."""
_NORMAL_HU, _SPREAD_HU = 32.0, 20.0
"""Centre and standard deviation of the weight of a peak."""
_MIN_PIXELS = 300
"""Smallest number of counted pixels: 30 cm2 of brain."""

_BINS = np.arange(_LOW_HU - _MARGIN_HU, _HIGH_HU + _MARGIN_HU + 1)
_OFFSETS = np.arange(-_MARGIN_HU, _MARGIN_HU + 1)
_GAUSSIAN = np.exp(-0.5 * (_OFFSETS / _SMOOTH_HU) ** 2)
_RANGE = np.arange(_LOW_HU, _HIGH_HU + 1)
_WEIGHT = np.exp(-0.5 * ((_RANGE - _NORMAL_HU) / _SPREAD_HU) ** 2)


def brain_mode(hu: NDArray[np.int16]) -> float | None:
    """Estimate the mode of brain tissue in one pass; labels are not used.

    Args:
        hu: (slab, y, x) HU, lowest slab first.

    Returns:
        The mode in HU; None where the upper half contains too little soft tissue.
    """
    if not len(hu):
        return None
    values = np.concatenate([_soft_tissue(_reduced(hu[i])) for i in _chosen(len(hu))])
    values = values[(values >= _BINS[0]) & (values <= _BINS[-1])]
    counts = np.bincount(values - _BINS[0], minlength=len(_BINS))
    if counts[_MARGIN_HU:-_MARGIN_HU].sum() < _MIN_PIXELS:
        return None
    smooth = np.convolve(counts, _GAUSSIAN, mode="valid")
    inner = smooth[1:-1]
    peaks = 1 + np.flatnonzero((inner >= smooth[:-2]) & (inner > smooth[2:]))
    if not len(peaks):
        return None
    top = int(peaks[np.argmax((smooth * _WEIGHT)[peaks])])
    below, at, above = smooth[top - 1 : top + 2]
    return float(_RANGE[top] + 0.5 * (below - above) / (below - 2 * at + above))


def nominal_shift(mode: float | None, nominal: float | None, largest: float) -> int:
    """Whole HU to add so that the mode becomes the nominal value.

    Args:
        mode: Measured mode in HU; None where it is unknown.
        nominal: Value to which it is shifted; None for no shift.
        largest: Largest shift; a larger one is limited to it, so that a small change of the mode never has a
            large effect.

    Returns:
        The shift; 0 where mode or nominal value is None.
    """
    if mode is None or nominal is None:
        return 0
    return round(min(max(nominal - mode, -largest), largest))


def shift_hu(hu: NDArray[np.int16], shift: int) -> None:
    """Add whole HU in place, limited to the largest int16. Air may fall below AIR_HU.

    Args:
        hu: HU of any shape, at least -1024.
        shift: HU to add, of at most 1,000.
    """
    if not shift or not hu.size:
        return
    highest = np.iinfo(np.int16).max - max(0, shift)
    if shift > 0 and hu.max() > highest:
        np.minimum(hu, np.int16(highest), out=hu)
    hu += np.int16(shift)


def _chosen(slabs: int) -> NDArray[np.int64]:
    """Slabs of the upper half, at most ``_SLABS``, evenly spread."""
    upper = np.arange(slabs // 2, slabs)
    if len(upper) <= _SLABS:
        return upper
    return upper[np.linspace(0, len(upper) - 1, _SLABS).round().astype(np.int64)]


def _reduced(hu: NDArray[np.int16]) -> NDArray[np.int16]:
    """A slab at ``_SIDE`` x ``_SIDE``, each pixel the mean of 2 x 2 pixels; a smaller one is unchanged."""
    if min(hu.shape) <= _SIDE:
        return hu
    return cv2.resize(hu, (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def _soft_tissue(hu: NDArray[np.int16]) -> NDArray[np.int16]:
    """Averages over 3 x 3 pixels that are all soft tissue, of (y, x) HU."""
    soft = (hu > _SOFT_HU[0]) & (hu < _SOFT_HU[1])
    rows = soft[:-2] & soft[1:-1] & soft[2:]
    inside = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
    return cast(NDArray[np.int16], cv2.blur(hu, (3, 3)))[1:-1, 1:-1][inside]
