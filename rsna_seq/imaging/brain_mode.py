"""The mode of brain tissue of a pass in HU, and the shift that brings it to a nominal value.

HU are not the same on every scanner: the mode of brain tissue in 17 real studies lies between 24 and 43 HU.

1. Up to 16 slabs of the upper half (above the skull base and the face), reduced to 64 x 64 by area averages,
   which removes most of the noise.
2. Pixels whose whole neighbourhood is soft tissue: neither scalp, nor edges of bone and air.
3. Their histogram from 5 to 65 HU, smoothed; the highest of its peaks, weighted by distance from normal
   brain, so that wide ventricles or a large bleed are not taken for brain; its position by a parabola.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from rsna_seq.imaging.volume import AIR_HU

_SLABS = 16
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
    counts = np.zeros(len(_BINS), dtype=np.int64)
    for i in _chosen(len(hu)):
        inside = _soft_tissue(_reduced(hu[i])) - _BINS[0]
        counts += np.bincount(inside[(inside >= 0) & (inside < len(_BINS))], minlength=len(_BINS))
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
    """Add whole HU in place; results outside AIR_HU and the largest int16 are limited to them.

    Args:
        hu: HU of any shape.
        shift: HU to add, of at most 1,000.
    """
    if shift:
        np.clip(hu, AIR_HU + max(0, -shift), np.iinfo(np.int16).max - max(0, shift), out=hu)
        hu += np.int16(shift)


def _chosen(slabs: int) -> NDArray[np.int64]:
    """Slabs of the upper half, at most ``_SLABS``, evenly spread."""
    upper = np.arange(slabs // 2, slabs)
    if len(upper) <= _SLABS:
        return upper
    return upper[np.linspace(0, len(upper) - 1, _SLABS).round().astype(np.int64)]


def _reduced(hu: NDArray[np.int16]) -> NDArray[np.int16]:
    """A slab at ``_SIDE`` x ``_SIDE`` by area averages; a smaller one is unchanged."""
    if min(hu.shape) <= _SIDE:
        return hu
    return cv2.resize(hu, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _soft_tissue(hu: NDArray[np.int16]) -> NDArray[np.int64]:
    """HU of the pixels whose 3 x 3 neighbourhood is soft tissue."""
    soft = ((hu > _SOFT_HU[0]) & (hu < _SOFT_HU[1])).astype(np.uint8)
    inside = cv2.erode(soft, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return hu[inside > 0].astype(np.int64)
