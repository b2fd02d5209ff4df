"""The neighbours of a slice, in millimetres and not in indices.

In a study of 5 mm the neighbours are the next slices; in one of 2.5 mm the next but one; where two passes
overlap, a slice at nearly the same place is no neighbour.
"""

import numpy as np
from numpy.typing import NDArray

_REACH = 2.5
"""A neighbour farther from its wanted place than so many nominal spacings does not count: an edge."""


def neighbour_indices(
    z_mm: NDArray[np.floating], neighbours: int, spacing_mm: float = 5.0
) -> NDArray[np.int64]:
    """Find the neighbours of every slab of one study.

    Neighbour ``j`` is the slab nearest to ``z + j * spacing_mm``, on its own side, at least half the median
    gap away from the slab itself. Where there is none within reach, the last one found is repeated; at a
    study's end that is the edge slab.

    Args:
        z_mm: (slab,) positions, rising.
        neighbours: Slabs either side.
        spacing_mm: Nominal distance of one neighbour to the next.

    Returns:
        (slab, 2 * neighbours + 1) indices, from below to above, the slab itself in the middle.
    """
    z = np.asarray(z_mm, dtype=np.float64)
    n, own = len(z), np.arange(len(z))
    found = np.empty((n, 2 * neighbours + 1), dtype=np.int64)
    found[:, neighbours] = own
    if n == 0 or neighbours == 0:
        return found
    apart = np.median(np.diff(z)) / 2 if n > 1 else 0.0
    for side in (-1, 1):
        last = own
        for j in range(1, neighbours + 1):
            last = _nearest(z, last, side * j * spacing_mm, apart, _REACH * spacing_mm)
            found[:, neighbours + side * j] = last
    return found


def _nearest(
    z: NDArray[np.float64], fallback: NDArray[np.int64], offset: float, apart: float, reach: float
) -> NDArray[np.int64]:
    """Index of the slab nearest to z + offset on that side of each slab, or the fallback."""
    target = z + offset
    right = np.searchsorted(z, target)
    candidates = np.stack([np.clip(right - 1, 0, len(z) - 1), np.clip(right, 0, len(z) - 1)])
    # the nearest may be too close to the slab itself: then the first one that is far enough away
    beyond = (
        np.searchsorted(z, z + max(apart, 1e-6))
        if offset > 0
        else np.searchsorted(z, z - max(apart, 1e-6), "right") - 1
    )
    candidates = np.concatenate([candidates, np.clip(beyond, 0, len(z) - 1)[None]])
    distance = np.abs(z[candidates] - target)
    travelled = (z[candidates] - z) * np.sign(offset)
    distance[(travelled < max(apart, 1e-6)) | (distance > reach)] = np.inf
    best = distance.argmin(axis=0)
    chosen = np.take_along_axis(candidates, best[None], axis=0)[0]
    nothing = ~np.isfinite(np.take_along_axis(distance, best[None], axis=0)[0])
    answer: NDArray[np.int64] = np.where(nothing, fallback, chosen)
    return answer
