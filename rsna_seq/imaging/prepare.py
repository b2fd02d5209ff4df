"""Preparation of one pass for the networks: crop, resize, slabs, and the shift of the brain's mode."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsna_seq.config import CacheConfig
from rsna_seq.imaging.brain_mode import brain_mode, nominal_shift, shift_hu
from rsna_seq.imaging.head import crop_resize, head_square, slab_numbers


@dataclass(frozen=True)
class Prepared:
    """One pass as the networks see it.

    Attributes:
        hu: (slab, size, size) HU, with the shift applied.
        numbers: (slice,) slab of each slice, from 0.
        square: The crop in pixels: left, top, side.
        brain_hu: Mode of brain tissue before the shift, in HU; None where it is unknown or not measured.
        hu_shift: HU that were added.
    """

    hu: NDArray[np.int16]
    numbers: NDArray[np.int64]
    square: tuple[int, int, int]
    brain_hu: float | None
    hu_shift: int


def prepare(pixels: list[NDArray[np.int16]], z_mm: NDArray[np.float64], cfg: CacheConfig) -> Prepared:
    """Crop, resize and average one pass, and bring the mode of its brain tissue to ``cfg.brain_hu``.

    Args:
        pixels: (y, x) HU of each slice, lowest first.
        z_mm: (slice,) positions, rising.
        cfg: Size, crop, slabs, nominal mode.
    """
    shape = max(p.shape for p in pixels)
    square = head_square([p for p in pixels if p.shape == shape]) if cfg.crop else (0, 0, max(shape))
    resized = np.empty((len(pixels), cfg.size, cfg.size), dtype=np.int16)
    for kind in (kinds := {p.shape for p in pixels}):
        mine = [i for i, p in enumerate(pixels) if p.shape == kind]
        place = resized if len(kinds) == 1 else None
        small = crop_resize([pixels[i] for i in mine], _scaled(square, kind, shape), cfg.size, place)
        if place is None:
            resized[mine] = small
    numbers = slab_numbers(z_mm, slab_mm=cfg.slab_mm, thin_mm=cfg.thin_mm)
    if len(numbers) and numbers[-1] + 1 < len(numbers):
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        counts = np.diff(np.append(starts, len(numbers)))
        total = np.add.reduceat(resized.astype(np.int32), starts, axis=0)
        resized = np.rint(total / counts[:, None, None]).astype(np.int16)
    mode = None if cfg.brain_hu is None else brain_mode(resized)
    shift = nominal_shift(mode, cfg.brain_hu, cfg.max_hu_shift)
    shift_hu(resized, shift)
    return Prepared(resized, numbers, square, mode, shift)


def _scaled(
    square: tuple[int, int, int], shape: tuple[int, ...], reference: tuple[int, ...]
) -> tuple[int, int, int]:
    """The same square in a slice of another matrix."""
    if shape == reference:
        return square
    factor = shape[0] / reference[0]
    return round(square[0] * factor), round(square[1] * factor), max(1, round(square[2] * factor))
