"""Where the networks found a class: maps of the key slices of the findings above their thresholds.

1. The pass that holds the key slice is read as the networks see it.
2. :func:`rsna_seq.nets.maps.class_map`: the map of the class in the slab of the key slice.
3. The map's maximum as a position in the original image, in pixels and in mm.

``docs/localization.md`` states how often the maximum lies in the haemorrhage, on phantoms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.clinic.results import Location, Study
from rsna_seq.imaging.neighbours import neighbour_indices
from rsna_seq.labels import CLASSES
from rsna_seq.nets.maps import SHOWN, class_map
from rsna_seq.stages import cache
from rsna_seq.stages.predict.trained import TrainedRun


@dataclass(frozen=True)
class Located:
    """The map of one finding.

    Attributes:
        hu: (y, x) HU of the slab that holds the key slice, cropped to the head.
        found: (y, x) map of the same pixels, 0 to 1.
        square: Left, top and side of the crop in pixels of the original image; it may reach outside.
        location: The map's maximum.
    """

    hu: NDArray[np.int16]
    found: NDArray[np.float32]
    square: tuple[int, int, int]
    location: Location


def locate(study: Study, slices: pl.DataFrame, root: Path, run: TrainedRun) -> dict[str, Located]:
    """Compute the maps of a study's findings above their thresholds.

    Args:
        study: Its result.
        slices: SLICES of the study.
        root: Folder that files are relative to.
        run: The run whose networks are asked.

    Returns:
        By class; without classes whose maps did not pass, and without maps that are empty.
    """
    wanted = {name: found.key_image.slice for name, found in study.findings.items() if found.above}
    wanted = {name: key for name, key in wanted.items() if name in SHOWN}
    found: dict[str, Located] = {}
    for rows in cache.split_by_pass(slices) if wanted else ():
        here = {name: key for name, key in wanted.items() if key in set(rows["slice"])}
        if here:
            found |= _in_pass(here, rows, root, run)
    return {name: found[name] for name in CLASSES if name in found}


def _in_pass(
    wanted: Mapping[str, str], rows: pl.DataFrame, root: Path, run: TrainedRun
) -> dict[str, Located]:
    """The maps of key slices that lie in one pass."""
    read = cache.apply(rows, root, run.cache)
    if read.volume is None:
        return {}
    nets = list(run.embedders.values())
    cfg, found = nets[0].cfg, {}
    near = neighbour_indices(read.volume.z_mm, cfg.neighbours, cfg.spacing_mm)
    for name, key in wanted.items():
        at = read.slabs["slices"].list.contains(key).arg_true().to_list()
        if not at:
            continue
        slab = read.slabs.row(at[0], named=True)
        where = class_map(nets, read.volume.hu[near[at[0]]], CLASSES.index(name))
        if where.any():
            square = slab["x0"], slab["y0"], slab["side"]
            row = rows.row(by_predicate=pl.col("slice") == key, named=True)
            found[name] = Located(read.volume.hu[at[0]], where, square, _location(where, square, row))
    return found


def _location(
    found: NDArray[np.float32], square: Sequence[int], row: Mapping[str, float | None]
) -> Location:
    """The maximum of a map in the original image; pixel centres are whole numbers."""
    y, x = np.unravel_index(int(found.argmax()), found.shape)
    scale = square[2] / len(found)
    column = round(float(square[0] + (x + 0.5) * scale - 0.5), 1)
    line = round(float(square[1] + (y + 0.5) * scale - 0.5), 1)
    across, down = row["col_mm"], row["row_mm"]
    return Location(
        column=column,
        row=line,
        x_mm=None if across is None else round(column * across, 1),
        y_mm=None if down is None else round(line * down, 1),
    )
