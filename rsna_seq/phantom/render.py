"""Render a study from a patient, an acquisition and bleeds: fields on slice faces, then slice by slice.

1. Planes: the lower and upper face of every slice, shared between adjacent slices.
2. Fields on a coarse lattice of all planes at once (plane, row, column).
3. For each slice the fields of its two faces at working resolution (row, column), converted to HU.
4. Kernel, motion, beam hardening, table and noise at the resolution of the matrix.
"""

from dataclasses import dataclass
from math import gcd
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from rsna_seq.phantom.bleeds import KINDS, Bleed, push_points
from rsna_seq.phantom.brain import brain_fields, dura_fields
from rsna_seq.phantom.clots import OUTSIDE, bleed_depth, oedema, outside_room
from rsna_seq.phantom.fields import F32, Points
from rsna_seq.phantom.noise import blurred, dark_bands, moved, noise_slice, noise_tile
from rsna_seq.phantom.patient import Patient, to_template
from rsna_seq.phantom.scanner import Scan, lattice
from rsna_seq.phantom.skull import skull_fields
from rsna_seq.phantom.tissue import Slab, compose
from rsna_seq.phantom.variation import calibrated

COARSE = 96
"""Points along each side of the lattice of the fields, about 2.5 mm apart; at most the number of pixels."""
FEW = 4
"""Number of planes whose fields are computed together."""
NEAR_MM = 7.0
"""Margin of the brain's fields outside the inner table, for the interpolation to the pixels."""


@dataclass(frozen=True)
class Study:
    """A rendered study, slices in the order of acquisition."""

    hu: NDArray[np.int16]
    """HU (slice, row, column), without padding."""
    area: F32
    """Area of each of the five types in each slice, mm2 (slice, type); 0 where it is absent."""
    scan: Scan
    bleeds: tuple[Bleed, ...]
    masks: NDArray[np.uint8] | None = None
    """Share of each pixel's slab that is blood of each type, in 1/255 (slice, type, row, column), where
    it was asked for. Blur and motion of the image are not in it."""

    @property
    def labels(self) -> NDArray[np.bool_]:
        """Labels (slice, class) in the order of :data:`rsna_seq.labels.CLASSES`."""
        types = self.area > 0
        return np.concatenate([types, types.any(axis=1, keepdims=True)], axis=1)


def render_study(
    patient: Patient,
    scan: Scan,
    bleeds: tuple[Bleed, ...],
    matrix: int,
    rng: np.random.Generator,
    *,
    masks: bool = False,
) -> Study:
    """Render a study.

    Args:
        patient: The patient.
        scan: The acquisition.
        bleeds: The bleeds.
        matrix: Rows and columns.
        rng: Random generator of the noise.
        masks: Keep the mask of each type of bleed; the image is the same.
    """
    offsets, thickness = np.array(scan.offsets), np.array(scan.thickness)
    faces = np.concatenate([offsets - thickness / 2, offsets + thickness / 2]).round(3)
    planes, which = np.unique(faces, return_inverse=True)
    work = matrix // 2 if matrix >= 400 else matrix
    fields = _fields(patient, scan, bleeds, planes.astype(np.float32), min(COARSE, work))
    texture = _textures(rng, scan, matrix, work, _lowest(fields["head"], scan))
    hu = np.empty((len(offsets), matrix, matrix), np.int16)
    area = np.empty((len(offsets), len(KINDS)), np.float32)
    box = _box(fields["head"], work)
    blood = np.zeros((len(offsets), len(KINDS), matrix, matrix), np.uint8) if masks else None
    ready: dict[int, dict[str, F32]] = {}
    for i in range(len(offsets)):
        pair = int(which[i]), int(which[i + len(offsets)])
        ready = {k: ready[k] if k in ready else _face(fields, k, box) for k in pair}
        slab = Slab(
            ready[pair[0]], ready[pair[1]], 0.55 * scan.field_of_view / work, scan.field_of_view / work,
            noise_slice(rng, texture.fine, work)[box.fine], noise_slice(rng, texture.cells, work)[box.fine],
        )  # fmt: skip
        made = compose(slab, patient, bleeds)
        area[i] = made.area
        hu[i] = _acquire(_whole(made.hu, box, -1000), _whole(made.dense, box, 0), scan, i, texture, rng)
        if blood is not None:
            for kind, part in made.blood.items():
                blood[i, KINDS.index(kind)] = _mask(part, box, matrix)
    return Study(hu, area, scan, bleeds, blood)


@dataclass(frozen=True)
class _Textures:
    """Textures and maps that are common to all slices of a study."""

    tile: F32
    """Reconstruction noise."""
    fine: F32
    """Texture of marrow and muscle, at working resolution."""
    cells: F32
    """Texture of honeycombed bone, at working resolution."""
    table: F32
    """Attenuation of table or headrest, HU (row, column), -1000 elsewhere."""
    loud: F32
    """Standard deviation of the noise, HU (row, column)."""


def _textures(rng: np.random.Generator, scan: Scan, matrix: int, work: int, lowest: float) -> _Textures:
    """Sample a study's textures; the head rests ``lowest`` mm below the centre of the image."""
    pixel = scan.field_of_view / matrix
    side = (np.arange(matrix, dtype=np.float32) + 0.5) / matrix - 0.5
    radius = np.hypot(side[:, None], side[None, :]) * 2
    loud = scan.noise * (1.08 - 0.3 * radius * radius)
    return _Textures(
        tile=noise_tile(rng, matrix, pixel, scan.grain),
        fine=noise_tile(rng, work, scan.field_of_view / work, 0.9),
        cells=noise_tile(rng, work, scan.field_of_view / work, 1.5),
        table=_table(scan, side * scan.field_of_view, lowest + rng.uniform(1, 6)),
        loud=loud.astype(np.float32),
    )


def _fields(
    patient: Patient, scan: Scan, bleeds: tuple[Bleed, ...], planes: F32, size: int
) -> dict[str, F32]:
    """All fields on the coarse lattice, (plane, row, column); in batches of planes that fit the CPU cache."""
    parts = [_few(patient, scan, bleeds, planes[i : i + FEW], size) for i in range(0, len(planes), FEW)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _few(patient: Patient, scan: Scan, bleeds: tuple[Bleed, ...], planes: F32, size: int) -> dict[str, F32]:
    """Fields of a few planes; fields of the brain are computed only in and near it."""
    points, gravity = lattice(scan, planes, size)
    still = to_template(points, patient)
    fields = skull_fields(still, patient)
    within = fields["cavity"] > -NEAR_MM
    inner = _brain(
        patient, bleeds, Points(*(v[within] for v in still)), gravity[within], fields["cavity"][within]
    )
    for name, values in inner.items():
        fields[name] = np.zeros_like(gravity)
        fields[name][within] = values
    fields["gravity"] = gravity
    return fields


def _brain(
    patient: Patient, bleeds: tuple[Bleed, ...], still: Points, gravity: F32, cavity: F32
) -> dict[str, F32]:
    """Fields of the brain, its dura and its bleeds at points of the template."""
    fields = {"cavity": cavity}
    depths: dict[int, F32] = {}
    for i, b in enumerate(bleeds):
        if b.kind in OUTSIDE:
            depths[i] = bleed_depth(b, still, gravity, fields)
    room = outside_room(list(depths.values()), cavity)
    fields |= brain_fields(push_points(still, bleeds), patient, room)
    fields |= dura_fields(still, patient, cavity)
    for i, b in enumerate(bleeds):
        if i not in depths:
            depths[i] = bleed_depth(b, still, gravity, fields)
        fields[f"bleed{i}"] = depths[i]
    fields["wet"] = oedema(bleeds, [depths[i] for i in range(len(bleeds))], gravity)
    del fields["cavity"]
    return fields


@dataclass(frozen=True)
class _Box:
    """The part of the images that contains the head; the rest is air and is not computed."""

    coarse: tuple[slice, slice]
    """Rows and columns of the lattice."""
    fine: tuple[slice, slice]
    """Rows and columns at working resolution."""
    size: int
    """Rows and columns of the whole image at working resolution."""


def _box(head: F32, size: int) -> _Box:
    """Find the bounding box of the head over all planes, aligned to lattice and working resolution."""
    side = head.shape[1]
    unit = side // gcd(side, size)
    coarse, fine = [], []
    for others in ((0, 2), (0, 1)):
        there = np.flatnonzero((head > -3).any(axis=others))
        first, last = (int(there[0]), int(there[-1])) if there.size else (0, side - 1)
        low, high = max(first - 2, 0) // unit * unit, min(last + 2, side - 1) // unit * unit + unit
        coarse.append(slice(low, high))
        fine.append(slice(low * size // side, high * size // side))
    return _Box((coarse[0], coarse[1]), (fine[0], fine[1]), size)


def _whole(part: F32, box: _Box, outside: float) -> F32:
    """Insert the image of a box into the whole image."""
    image = np.full((box.size, box.size), outside, np.float32)
    image[box.fine] = part
    return image


def _mask(part: F32, box: _Box, matrix: int) -> NDArray[np.uint8]:
    """The share of blood in a box as a whole image of the matrix, in 1/255."""
    share = np.rint(255 * np.clip(_whole(part, box, 0), 0, 1)).astype(np.uint8)
    return cast(NDArray[np.uint8], cv2.resize(share, (matrix, matrix), interpolation=cv2.INTER_LINEAR))


def _face(fields: dict[str, F32], plane: int, box: _Box) -> dict[str, F32]:
    """The fields of one plane at working resolution."""
    rows, columns = (part.stop - part.start for part in box.fine)
    return {
        name: cast(
            F32,
            cv2.resize(
                np.ascontiguousarray(field[plane][box.coarse]), (columns, rows), interpolation=cv2.INTER_CUBIC
            ),
        )
        for name, field in fields.items()
    }


def _lowest(head: F32, scan: Scan) -> float:
    """Extent of the head below the centre of the image, mm."""
    rows = np.flatnonzero((head > 0).any(axis=(0, 2)))
    return float((rows.max(initial=0) + 1) / head.shape[1] - 0.5) * scan.field_of_view


def _table(scan: Scan, side: F32, rest: float) -> F32:
    """Headrest or table under the head, with its upper side ``rest`` mm below the centre, HU."""
    u, v = side[None, :], side[:, None]
    if scan.table == "none":
        return np.full((len(side), len(side)), -1000, np.float32)
    if scan.table == "headrest":
        away = np.abs(np.hypot(u / 98, (v - rest + 103) / 103) - 1) * 98 - 0.5
        away = np.where(v > rest - 108, away, 9)
    elif scan.table == "shell":
        away = np.abs(np.hypot(u / 112, (v - rest + 116) / 116) - 1) * 112 - 0.8
        away = np.where(v > rest - 90, away, 9)
    else:
        away = np.abs(v + 0 * u - rest - 4) - 1.0
    pixel = float(side[1] - side[0])
    result: F32 = (-1000 + 1150 * np.clip(0.5 - away / pixel, 0, 1)).astype(np.float32)
    return result


def _acquire(
    image: F32, dense: F32, scan: Scan, i: int, texture: _Textures, rng: np.random.Generator
) -> NDArray[np.int16]:
    """Convert a slab's HU at working resolution to the image of the scanner, (row, column)."""
    matrix = texture.loud.shape[0]
    bands = dark_bands(dense, scan.hardening)
    image = image + bands * np.clip((image + 300) / 300, 0, 1)
    first, last, way = scan.motion
    if way and first <= i <= last:
        image = moved(image, way / (scan.field_of_view / len(image)), float(rng.normal(0, 1.5)))
    if len(image) != matrix:
        image = cast(F32, cv2.resize(image, (matrix, matrix), interpolation=cv2.INTER_CUBIC))
    image = np.maximum(image, texture.table)
    image = blurred(image, scan.kernel / (scan.field_of_view / matrix), scan.sharpen)
    image = calibrated(image, scan)
    loud = texture.loud * (1 - cv2.resize(bands, (matrix, matrix)) / 15)
    image = image + loud * noise_slice(rng, texture.tile, matrix)
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16)
