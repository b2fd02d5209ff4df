"""Where the networks found a class: maps of the key images of the findings.

Findings are the types above their thresholds and above 0.5, which is where the maps were measured.

1. The pass that holds the key image is read as the networks see it.
2. :func:`rsna_seq.nets.maps.class_map`: the map of the class in the slab of the key image.
3. The map's maximum as a position in the key image, and for the pages of the report a picture.

``docs/localization.md`` states how often the maximum lies in the haemorrhage. If several runs are
averaged, the maps are those of the first.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.clinic.results import Finding, Location, Results, Study
from rsna_seq.console import progress
from rsna_seq.imaging.neighbours import neighbour_indices
from rsna_seq.imaging.pixels import read_hu, series_is_wrapped
from rsna_seq.labels import CLASSES
from rsna_seq.nets.maps import BRAIN_HU, LOWEST, SHOWN, class_map
from rsna_seq.reasons import ExclusionError
from rsna_seq.report.overlay import overlay
from rsna_seq.report.worklist import order_by_urgency, row_of
from rsna_seq.stages import cache, index
from rsna_seq.stages.predict.trained import TrainedRun

Pictures = dict[str, dict[str, str]]
"""By study and class, the key image coloured by the map, as a ``data:`` address."""


class Located(NamedTuple):
    """The map of one finding."""

    found: NDArray[np.float32]
    """(y, x) map of the crop that the networks see, 0 to 1."""
    square: tuple[int, int, int]
    """Left, top and side of the crop in pixels of the key image; it may reach outside."""
    location: Location
    """The map's maximum."""


def with_locations(
    results: Results, scan: index.Scan, run: TrainedRun, pages: int
) -> tuple[Results, Pictures]:
    """Add the locations of all findings.

    Args:
        results: The prediction.
        scan: What was found in the inputs.
        run: The run whose networks are asked.
        pages: Number of studies, the most urgent first, of which pictures are made.

    Returns:
        The results with locations, and the pictures.
    """
    ordered = order_by_urgency([row_of(study, None) for study in results.studies])
    drawn = {row.study for row in ordered[:pages]}
    studies, pictures = [], {}
    with progress("locate", len(results.studies)) as advance:
        for study in results.studies:
            slices = scan.slices.filter(pl.col("study") == study.study) if _wanted(study) else scan.slices[:0]
            found = locate(study, slices, scan.root, run)
            studies.append(_with(study, found))
            if study.study in drawn and found:
                pictures[study.study] = _pictures(study, found, slices, scan.root)
            advance(1)
    return results.model_copy(update={"studies": studies}), pictures


def _wanted(study: Study) -> dict[str, Finding]:
    """The findings that are located."""
    above = {name: found for name, found in study.findings.items() if found.above and name in SHOWN}
    return {name: found for name, found in above.items() if found.probability > LOWEST}


def _with(study: Study, found: Mapping[str, Located]) -> Study:
    findings = {
        name: each.model_copy(update={"location": found[name].location}) if name in found else each
        for name, each in study.findings.items()
    }
    return study.model_copy(update={"findings": findings})


def _pictures(study: Study, found: Mapping[str, Located], slices: pl.DataFrame, root: Path) -> dict[str, str]:
    """The key images of a study, each at its own resolution under its map."""
    drawn = {}
    for name, each in found.items():
        row = slices.row(by_predicate=pl.col("slice") == study.findings[name].key_image.slice, named=True)
        series = slices.filter(pl.col("series") == row["series"])
        try:
            wrapped = series_is_wrapped(root, series.iter_rows(named=True))
            hu = read_hu(root / row["file"], row, wrapped_series=wrapped)
        except ExclusionError:
            continue  # predict has reported it
        drawn[name] = overlay(hu, each.found, name, each.square)
    return drawn


def locate(study: Study, slices: pl.DataFrame, root: Path, run: TrainedRun) -> dict[str, Located]:
    """Compute the maps of a study's findings.

    Args:
        study: Its result.
        slices: SLICES of the study.
        root: Folder that files are relative to.
        run: The run whose networks are asked.

    Returns:
        By class; without classes whose maps are not accurate enough, and without empty maps.
    """
    wanted = {name: each.key_image.slice for name, each in _wanted(study).items()}
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
    mode = BRAIN_HU if run.cache.brain_hu is None else run.cache.brain_hu
    near = neighbour_indices(read.volume.z_mm, cfg.neighbours, cfg.spacing_mm)
    for name, key in wanted.items():
        at = read.slabs["slices"].list.contains(key).arg_true().to_list()
        if not at:
            continue
        slab = read.slabs.row(at[0], named=True)
        where = class_map(nets, read.volume.hu[near[at[0]]], CLASSES.index(name), mode)
        if where.any():
            square = slab["x0"], slab["y0"], slab["side"]
            row = rows.row(by_predicate=pl.col("slice") == key, named=True)
            found[name] = Located(where, square, _location(where, square, row))
    return found


def _location(found: NDArray[np.float32], square: Sequence[int], row: Mapping[str, float | None]) -> Location:
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
