"""Convert depth fields to attenuation: one slab of the head in HU, and the area of each bleed in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rsna_seq.phantom.bleeds import KINDS, Bleed, clot_unevenness
from rsna_seq.phantom.fields import F32, share, sheet, smoothstep
from rsna_seq.phantom.patient import Patient

MIN_AREA_MM2 = 12.0
"""Minimum area of a bleed in a slice, weighted by partial volume; smaller bleeds are not drawn there."""
MIN_PEAK = 0.35
"""Minimum of the highest partial volume of a bleed in a slice."""


@dataclass(frozen=True)
class Slab:
    """The fields of one slice on its lower and upper face, at working resolution."""

    low: dict[str, F32]
    high: dict[str, F32]
    soft: float
    """Half width of edges in the plane, mm."""
    pixel_mm: float
    grain: F32
    """Fine unitless noise, for marrow and muscle."""
    cells: F32
    """Coarser unitless noise, for air cells in bone."""

    def part(self, name: str) -> F32:
        """Fraction of each pixel's slab within a shape."""
        return share(self.low[name], self.high[name], self.soft)

    def mean(self, name: str) -> F32:
        """A field at the centre plane of the slab."""
        middle: F32 = (self.low[name] + self.high[name]) * np.float32(0.5)
        return middle


class Composed(NamedTuple):
    """A slab in HU, and what is known of it."""

    hu: F32
    """(row, column)."""
    area: F32
    """Area of each of :data:`KINDS`, mm2, 0 if it is too small to be drawn, (5,)."""
    dense: F32
    """Share of dense bone, (row, column)."""
    blood: dict[str, F32]
    """By type that is drawn, the share of each pixel's slab that is blood of it, (row, column)."""


def blend(under: F32, over: F32 | float, part: F32) -> F32:
    """Blend ``over`` onto ``under`` with opacity ``part``."""
    result: F32 = under + (over - under) * part
    return result


def compose(slab: Slab, patient: Patient, bleeds: Sequence[Bleed]) -> Composed:
    """Compute the HU of a slab."""
    outside = _outside(slab, patient)
    bone = _bone(slab, patient)
    part_bone = slab.part("bone")
    image = blend(outside, bone, part_bone)
    image = blend(image, _orbit(slab, patient), slab.part("orbit") * slab.part("head"))
    image = blend(image, -1000.0, slab.part("air"))
    brain, fluid = _brain(slab, patient)
    cavity = slab.part("cavity")
    brain, area, blood = _bleed(slab, brain, fluid, cavity, bleeds)
    dense = part_bone * (1 - cavity) * smoothstep(bone, 800, 1700)
    return Composed(blend(image, brain, cavity), area, dense, blood)


def _outside(slab: Slab, patient: Patient) -> F32:
    """Air, skin, fat, muscle and the orbits."""
    tissue = patient.tissue
    skin = slab.mean("head")
    fleshy = smoothstep(slab.mean("strands") + np.minimum(skin - 12, 6) / 9, 0.3, 1.0)
    muscle = np.maximum(fleshy * smoothstep(skin, 3, 6), slab.part("muscle") * smoothstep(skin, 3, 5))
    galea = smoothstep(slab.mean("bone"), -2.2, -1.2)
    flesh = tissue.fat + (tissue.muscle - tissue.fat) * np.maximum(muscle, 0.7 * galea)
    flesh = flesh + 6 * slab.grain
    flesh = blend(flesh, 58.0, 1 - smoothstep(skin, 1.5, 2.7))
    return blend(np.full_like(skin, -1000), flesh, slab.part("head"))


def _orbit(slab: Slab, patient: Patient) -> F32:
    """Fat, eye muscles and optic nerve, the globe with its wall and lens."""
    content = blend(patient.tissue.fat + 6 * slab.grain, patient.tissue.muscle - 12, slab.part("nerve"))
    content = blend(content, 48.0, share(slab.low["globe"] + 1.2, slab.high["globe"] + 1.2, slab.soft))
    content = blend(content, 12.0, slab.part("globe"))
    return blend(content, 75.0, slab.part("lens"))


def _bone(slab: Slab, patient: Patient) -> F32:
    """Compact bone of the tables, marrow between them, dense petrous bone, and air cells."""
    tissue = patient.tissue
    below = np.minimum(slab.mean("bone"), -slab.mean("cavity"))
    marrow = tissue.diploe + 170 * slab.grain + 120 * slab.mean("strands")
    bone = blend(np.full_like(below, tissue.table), marrow, smoothstep(below, 1.1, 2.6))
    bone = blend(bone, tissue.table + 350, smoothstep(slab.mean("dense"), -1, 3))
    hollow = slab.part("pneumatic") * smoothstep(slab.cells, -0.5, 0.3)
    return blend(bone, -950.0, hollow)


def _brain(slab: Slab, patient: Patient) -> tuple[F32, F32]:
    """Brain, fluid, dura and calcium; and the fraction of fluid that blood may fill."""
    tissue = patient.tissue
    gate, sulcus = slab.mean("gate"), slab.mean("sulcus")
    rind, reach = slab.mean("rind"), slab.mean("reach")
    width = reach * np.clip(gate * -0.25, 0, 1)
    thin = 0.7 * reach * np.clip((7 - rind) * 0.3, 0, 1)
    shallow = np.abs(slab.mean("shallow")) + np.maximum(rind - 6, 0)
    far = np.minimum(np.abs(sulcus) + np.maximum(gate + 2, 0), shallow)
    cortex = 1 - smoothstep(np.minimum(rind, far), 2.4, 4.4)
    grey = np.maximum(cortex, 0.65 * smoothstep(slab.mean("nuclei"), -1.5, 1.5))
    grey = np.maximum(grey, 0.45 * slab.part("stem"))
    hind = slab.mean("hind")
    grey = np.maximum(grey, 0.7 * smoothstep(hind, -1, 2) - 0.4 * smoothstep(hind, 12, 24))
    wet = slab.mean("wet")
    white = tissue.white + slab.mean("white")
    brain = white + (tissue.grey - white) * grey - wet * (14 - 8 * grey)
    fluid = np.maximum(slab.part("csf"), 1 - slab.part("pia"))
    fluid = np.maximum(fluid, sheet(slab.low["sulcus"], slab.high["sulcus"], width, slab.soft))
    fluid = np.maximum(fluid, sheet(slab.low["shallow"], slab.high["shallow"], thin, slab.soft))
    brain = blend(brain, tissue.csf, fluid)
    brain = blend(brain, tissue.csf, slab.part("vent"))
    for name in ("falx", "tent"):
        width = patient.falx * np.clip(slab.mean(f"{name}_in") / 4, 0, 1)
        brain = blend(brain, tissue.dura, sheet(slab.low[name], slab.high[name], width, slab.soft))
    brain = blend(brain, tissue.vein, slab.part("vein"))
    brain = blend(brain, tissue.vein - 6, slab.part("artery"))
    return blend(brain, patient.calcium.hu, slab.part("calcium")), fluid


def _bleed(
    slab: Slab, brain: F32, fluid: F32, cavity: F32, bleeds: Sequence[Bleed]
) -> tuple[F32, F32, dict[str, F32]]:
    """Draw the bleeds over the brain, type by type, if the slice contains enough of the type."""
    area, blood = np.zeros(len(KINDS), np.float32), {}
    parts = [slab.part(f"bleed{i}") for i in range(len(bleeds))]
    parts = [
        part * fluid if b.kind == "subarachnoid" else part for part, b in zip(parts, bleeds, strict=True)
    ]
    parts = [part * cavity for part in parts]
    for k, kind in enumerate(KINDS):
        mine = [part for part, b in zip(parts, bleeds, strict=True) if b.kind == kind]
        if mine:
            whole = np.maximum.reduce(mine)
            amount = float(whole.sum()) * slab.pixel_mm**2
            if amount >= MIN_AREA_MM2 and float(whole.max()) >= MIN_PEAK:
                area[k], blood[kind] = amount, whole
    for b, part in zip(bleeds, parts, strict=True):
        if b.kind == "hygroma" or area[KINDS.index(b.kind)]:
            clot = b.hu + clot_unevenness(b, slab.mean("strands"), slab.mean("gravity"))
            brain = blend(brain, clot, part)
    return brain, area, blood
