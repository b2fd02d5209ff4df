"""The studies of a phantom set, one by one: planned as a whole, each drawn and rendered on its own.

1. :func:`plan_set`: both splits as a whole: patients, and which study shows which bleeds.
2. :func:`make_study`: one study with its ids and labels; it depends on nothing but its task.
"""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from rsna_seq.config import SynthConfig
from rsna_seq.phantom.bleeds import KINDS, Bleed, draw_bleed, draw_hygroma
from rsna_seq.phantom.patient import Patient, draw_patient
from rsna_seq.phantom.prevalence import StudyPlan, plan_studies
from rsna_seq.phantom.render import Study, render_study
from rsna_seq.phantom.scanner import Scan, draw_scan
from rsna_seq.phantom.variation import vary
from rsna_seq.phantom.writer import Ids, Style, draw_style, make_ids

TRAIN, TEST = "stage_2_train", "stage_2_test"
_GROW = (1.0, 1.4, 1.9, 2.6, 3.5)
"""Sizes tried until each planned bleed is seen in some slice."""


@dataclass(frozen=True)
class StudyTask:
    """One study to make."""

    split: str
    """Folder of its images: TRAIN or TEST."""
    seed: int
    study: int
    """Index in the whole set, test studies after training ones."""
    plan: StudyPlan
    cfg: SynthConfig
    cut: bool
    """Whether one of its files is truncated."""

    @property
    def name(self) -> str:
        """StudyInstanceUID."""
        return make_ids(self.seed, self.plan.patient, self.study, 0).study


@dataclass(frozen=True)
class MadeStudy:
    """A rendered study with what its files need."""

    study: Study
    ids: Ids
    style: Style

    @property
    def labels(self) -> list[tuple[str, tuple[int, ...]]]:
        """Id and six labels of each image, in the order of acquisition."""
        rows = zip(self.ids.images, self.study.labels, strict=True)
        return [(image, tuple(int(v) for v in row)) for image, row in rows]

    def scanner(self) -> dict[str, Any]:
        """The drawn values of the scanner: one row of ``phantom_scanners.csv``."""
        scan = self.study.scan
        gaps = np.diff(np.sort(scan.offsets))
        return {
            "study": self.ids.study,
            "changes": " ".join(scan.changes) or "none",
            "offset_hu": round(scan.offset_hu, 2),
            "gain": round(scan.gain, 4),
            "noise_hu": round(scan.noise, 2),
            "grain_mm": round(scan.grain, 3),
            "kernel_mm": round(scan.kernel, 3),
            "sharpen": round(scan.sharpen, 3),
            "thickness_mm": round(float(np.mean(scan.thickness)), 2),
            "slices": len(scan.offsets),
            "smallest_gap_mm": round(float(gaps.min()), 2),
            "largest_gap_mm": round(float(gaps.max()), 2),
        }


def plan_set(cfg: SynthConfig, seed: int) -> tuple[list[StudyTask], list[StudyTask]]:
    """Plan the studies of both splits; patients of the test split are others.

    Args:
        cfg: How many studies of which kind.
        seed: Seed of the set.
    """
    rng = np.random.default_rng([seed, 0])
    splits: list[list[StudyTask]] = []
    study = patient = 0
    for name, count in ((TRAIN, cfg.studies), (TEST, cfg.test_studies)):
        plans = plan_studies(rng, count, cfg.rare_share) if count else ()
        cut = int(rng.integers(count)) if cfg.damage and count else -1
        tasks = [
            StudyTask(name, seed, study + i, replace(p, patient=patient + p.patient), cfg, cut=i == cut)
            for i, p in enumerate(plans)
        ]
        splits.append(tasks)
        study += count
        patient += max((p.patient for p in plans), default=-1) + 1
    return splits[0], splits[1]


def make_study(task: StudyTask, *, masks: bool = False) -> MadeStudy:
    """Draw and render one study.

    Args:
        task: Which.
        masks: Keep the masks of the bleeds (:attr:`rsna_seq.phantom.render.Study.masks`); the images are the
            same.
    """
    cv2.setNumThreads(1)
    patient = draw_patient(np.random.default_rng([task.seed, 1, task.plan.patient]))
    rng = np.random.default_rng([task.seed, 2, task.study])
    # the scanner has a generator of its own, so that one seed gives the same patients and haemorrhages on all
    scan = vary(np.random.default_rng([task.seed, 5, task.study]), draw_scan(rng, patient), task.cfg.scanners)
    study = _render(rng, patient, scan, task, masks=masks)
    offset = float(np.random.default_rng([task.seed, 3]).random())
    style = draw_style(rng, task.study, offset)
    return MadeStudy(study, make_ids(task.seed, task.plan.patient, task.study, len(study.hu)), style)


def _render(rng: np.random.Generator, patient: Patient, scan: Scan, task: StudyTask, *, masks: bool) -> Study:
    """Render a study; a planned bleed that no slice shows is drawn again, larger."""
    hygroma: tuple[Bleed, ...] = ()
    if patient.hygroma:
        hygroma = (draw_hygroma(rng, patient.hygroma, patient.hygroma_side),)
    bleeds = {kind: draw_bleed(rng, kind) for kind in task.plan.kinds}
    for grow in _GROW[1:]:
        drawn = hygroma + sum(bleeds.values(), ())
        study = render_study(patient, scan, drawn, task.cfg.matrix, rng, masks=masks)
        missing = [kind for kind in bleeds if not study.area[:, KINDS.index(kind)].any()]
        if not missing:
            return study
        bleeds |= {kind: draw_bleed(rng, kind, grow) for kind in missing}
    return study
