"""Slices with their neighbours from other stores: one PNG per slice, one zarr chunk per slice."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

WINDOWS = ((40.0, 80.0), (80.0, 200.0), (600.0, 2800.0))
Batch = NDArray[np.generic]


def shown(hu: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Convert HU to an 8-bit image with three windows as channels, (y, x, window)."""
    low, width = (np.array(v) for v in zip(*((level - w / 2, w) for level, w in WINDOWS), strict=True))
    image: NDArray[np.uint8] = np.rint(np.clip((hu[..., None] - low) / width, 0, 1) * 255).astype(np.uint8)
    return image


def write_pngs(slices: Iterable[NDArray[np.int16]], folder: Path) -> list[str]:
    """Write one windowed PNG per slice and return their paths."""
    folder.mkdir(parents=True)
    paths = []
    for i, hu in enumerate(slices):
        paths.append(str(folder / f"{i:06d}.png"))
        cv2.imwrite(paths[-1], shown(hu))
    return paths


def read_pngs(paths: list[str], rows: NDArray[np.int64]) -> Batch:
    """Read (n, neighbour, y, x, window), one file per image."""
    first = cv2.imread(paths[rows[0, 0]], cv2.IMREAD_UNCHANGED)
    batch = np.empty((*rows.shape, *first.shape), dtype=np.uint8)
    for i, neighbours in enumerate(rows):
        for j, row in enumerate(neighbours):
            batch[i, j] = cv2.imread(paths[row], cv2.IMREAD_UNCHANGED)
    return batch


def write_zarr(hu: NDArray[np.int16], folder: Path) -> Any:
    """Write a zarr array with one chunk per slice and zarr's default compression."""
    import zarr

    array = zarr.create_array(store=str(folder), shape=hu.shape, chunks=(1, *hu.shape[1:]), dtype=hu.dtype)
    array[:] = hu
    return zarr.open_array(str(folder), mode="r")


def read_zarr(array: Any, rows: NDArray[np.int64]) -> Batch:
    """Read (n, neighbour, y, x): contiguous neighbours in one selection, others one by one."""
    batch = np.empty((*rows.shape, *array.shape[1:]), dtype=np.int16)
    for i, neighbours in enumerate(rows):
        if (np.diff(neighbours) == 1).all():
            batch[i] = array[int(neighbours[0]) : int(neighbours[-1]) + 1]
        else:
            batch[i] = [array[int(row)] for row in neighbours]
    return batch
