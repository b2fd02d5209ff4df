"""Neighbours of a slice, by distance in millimetres instead of by index.

With 5 mm spacing the neighbours are the adjacent slices, with 2.5 mm every second slice; if two passes
overlap, a slice at nearly the same position is not a neighbour.
"""

import numpy as np
from numpy.typing import NDArray

_REACH = 2.5
"""Maximum distance of a neighbour from its nominal position, in nominal spacings."""


def neighbour_indices(z_mm: NDArray[np.floating], neighbours: int, spacing_mm: float) -> NDArray[np.int64]:
    """Find the neighbours of every slab of one study.

    Neighbour ``j`` is the slab nearest to ``z + j * spacing_mm``, on the same side, at least half the median
    gap away from the slab itself. If there is no such slab in range, the previous neighbour is repeated; at
    the end of a study that is the edge slab.

    Args:
        z_mm: (slab,) positions, increasing.
        neighbours: Number of slabs on either side.
        spacing_mm: Nominal distance between neighbours.

    Returns:
        (slab, 2 * neighbours + 1) indices from below to above, with the slab itself in the middle.
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
    # the nearest may be too close to the slab itself: then use the first one that is far enough away
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
