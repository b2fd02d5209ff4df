"""Phantoms with their masks, as the networks of a run see them, and the findings on which maps are judged.

1. :func:`tasks`: phantoms in which the five types take turns; a third of them have a second type.
2. :func:`make_case`: rendered with masks; pixels and masks go through the same crop, resizing and slabs;
   scored by the run. A case is kept as a file, because rendering takes seconds.
3. :func:`findings`: the types that a study has and the run finds, with their key slabs.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsna_seq.arrays import Floats
from rsna_seq.config import SynthConfig
from rsna_seq.imaging.head import crop_resize
from rsna_seq.imaging.prepare import Prepared, prepare
from rsna_seq.imaging.volume import Volume
from rsna_seq.phantom import KINDS
from rsna_seq.phantom.prevalence import StudyPlan
from rsna_seq.phantom.studies import StudyTask, make_study
from rsna_seq.stages.predict.trained import TrainedRun

SHARE = 0.35
"""Share of a pixel that is blood, from which the pixel belongs to the mask."""


@dataclass(frozen=True)
class Case:
    """A phantom as the networks see it.

    Attributes:
        name: Name of the study; equal for the same patient and haemorrhages on another scanner.
        hu: (slab, y, x) HU.
        z_mm: (slab,) positions.
        blood: (slab, type, y, x) share of each pixel that is blood, in 1/255.
        probabilities: (slab, 6) by the run.
        labels: (type,) whether the study has the type.
        pixel_mm: Size of a pixel.
    """

    name: str
    hu: NDArray[np.int16]
    z_mm: Floats
    blood: NDArray[np.uint8]
    probabilities: Floats
    labels: NDArray[np.bool_]
    pixel_mm: float

    def volume(self) -> Volume:
        """The pixels as the stages take them."""
        return Volume(self.name, self.hu, self.z_mm)

    def mask(self, kind: int) -> NDArray[np.bool_]:
        """(slab, y, x) mask of a type."""
        return self.blood[:, kind] >= SHARE * 255


@dataclass(frozen=True)
class Finding:
    """A type that a study has and the run finds."""

    case: Case
    kind: int
    """Index of the type, in the order of the classes."""
    slab: int
    """The key slab."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(y, x) mask in the key slab; empty if it does not show the type."""
        return self.case.mask(self.kind)[self.slab]


def tasks(count: int, seed: int, scanners: str, matrix: int) -> list[StudyTask]:
    """Plan phantoms of all types; one seed gives the same patients and haemorrhages on all scanners.

    Args:
        count: Number of studies.
        seed: Seed of the set.
        scanners: ``synth.scanners``.
        matrix: Rows and columns of a slice.
    """
    rng = np.random.default_rng([seed, 7])
    cfg = SynthConfig.model_validate({"scanners": scanners, "matrix": matrix})
    planned = []
    for study in range(count):
        kinds = {KINDS[study % len(KINDS)]}
        if rng.random() < 1 / 3:
            kinds.add(KINDS[int(rng.integers(len(KINDS)))])
        plan = StudyPlan(study, tuple(kind for kind in KINDS if kind in kinds))
        planned.append(StudyTask("maps", seed, study, plan, cfg, cut=False))
    return planned


def cases(folder: Path, run: TrainedRun, count: int, seed: int, scanners: str, matrix: int) -> Iterator[Case]:
    """Make the cases of a set, or read those that are in the folder; overlapping passes are left out.

    Args:
        folder: Where they are kept.
        run: Scores them, and gives the settings of the cache.
        count: Number of studies.
        seed: Seed of the set.
        scanners: ``synth.scanners``.
        matrix: Rows and columns of a slice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks(count, seed, scanners, matrix):
        file = folder / f"{run.identity.digest[:12]}_{seed}_{scanners}_{matrix}_{task.study}.npz"
        if not file.exists():
            case = make_case(task, run)
            kept = {} if case is None else {k: np.asarray(v) for k, v in vars(case).items()}
            part = file.with_suffix(".part.npz")
            np.savez_compressed(part, **kept)
            part.replace(file)
            print(f"{file.name}: made", file=sys.stderr, flush=True)
        with np.load(file) as kept:
            if "hu" in kept:
                values = {k: kept[k] for k in kept.files}
                values |= {"name": str(values["name"]), "pixel_mm": float(values["pixel_mm"])}
                yield Case(**values)


def make_case(task: StudyTask, run: TrainedRun) -> Case | None:
    """Render and score one phantom; None if it has overlapping passes, which are read apart.

    Args:
        task: Which.
        run: Scores it.
    """
    study = make_study(task, masks=True).study
    if study.scan.pattern in {"passes", "twice"}:
        return None
    assert study.masks is not None
    order = np.argsort(study.scan.offsets)
    z_mm = np.array(study.scan.offsets)[order]
    ready = prepare([study.hu[i] for i in order], z_mm, run.cache)
    count = np.bincount(ready.numbers)
    volume = Volume(task.name, ready.hu, np.bincount(ready.numbers, weights=z_mm) / count)
    return Case(
        name=f"{task.seed}/{task.study}",
        hu=volume.hu,
        z_mm=volume.z_mm,
        blood=_as_seen(study.masks[order], ready, run.cache.size),
        probabilities=run.score(volume),
        labels=(study.area > 0).any(axis=0),
        pixel_mm=study.scan.field_of_view / task.cfg.matrix * ready.square[2] / run.cache.size,
    )


def _as_seen(masks: NDArray[np.uint8], ready: Prepared, size: int) -> NDArray[np.uint8]:
    """(slice, type, y, x) masks -> (slab, type, size, size), through the crop and the slabs of the pixels."""
    small = np.zeros((*masks.shape[:2], size, size), np.int16)
    for kind in range(masks.shape[1]):
        # the crop fills with air outside the image: that is no blood
        crop_resize(list(masks[:, kind].astype(np.int16)), ready.square, size, small[:, kind])
    starts = np.flatnonzero(np.diff(ready.numbers, prepend=-1))
    total = np.add.reduceat(np.maximum(small, 0).astype(np.int32), starts, axis=0)
    return (total // np.bincount(ready.numbers)[:, None, None, None]).astype(np.uint8)


def findings(found: list[Case], threshold: float) -> list[Finding]:
    """The findings of all cases: types that the study has and the run finds.

    Args:
        found: The cases.
        threshold: Probability above which a type is found.
    """
    return [
        Finding(case, kind, int(case.probabilities[:, kind].argmax()))
        for case in found
        for kind in np.flatnonzero(case.labels)
        if case.probabilities[:, kind].max() > threshold
    ]
