"""The patient: parameters of the anatomy of one head, sampled once per patient."""

from dataclasses import dataclass

import numpy as np

from rsna_seq.phantom.fields import F32, Points, Waves, draw_waves, wave_noise


@dataclass(frozen=True)
class Tissue:
    """Attenuation of the patient's tissues, HU.

    Grey matter 37 to 41 and white matter 20 to 32 at 120 kVp, and their difference of 5 to 10: Arimitsu T
    et al., White-gray matter differentiation, AJNR 1988; Bushberg JT et al., The Essential Physics of Medical
    Imaging, 3rd ed., table 10-1 (CSF 0 to 15, fat -90, muscle 40 to 60, cortical bone 1000 and more).
    """

    grey: float
    white: float
    csf: float
    vein: float
    """Blood in the dural sinuses; HU close to the haematocrit (Buyck PJ et al., J Neuroradiol 2013)."""
    dura: float
    table: float
    """Inner and outer table of the skull."""
    diploe: float
    fat: float
    muscle: float


@dataclass(frozen=True)
class Calcium:
    """Radii of calcifications, mm; 0 for none."""

    pineal: float
    choroid: float
    basal: float
    """In the pallidum."""
    falx: float
    hu: float


@dataclass(frozen=True)
class Patient:
    """A head. Lengths in mm, fractions without unit; see :func:`draw_patient` for the ranges."""

    tissue: Tissue
    scale: tuple[float, float, float]
    """Scale relative to the template, along x, y, z."""
    egg: float
    """Narrowing of the forehead."""
    skull: float
    scalp: float
    atrophy: float
    """Atrophy: 0 for a young brain, 1 for wide sulci and cisterns."""
    ventricles: float
    """Linear size of the ventricles relative to the template."""
    leukoaraiosis: float
    """Decrease of periventricular white matter, HU."""
    air: tuple[float, float, float, float]
    """Pneumatisation of frontal, sphenoid, maxillary sinus and mastoid."""
    calcium: Calcium
    dominance: float
    """Of the right transverse sinus over the left, -1 to 1."""
    hygroma: float
    """Thickness of a chronic, hypodense collection, mm; 0 for none; not labelled as a bleed."""
    hygroma_side: float
    infarct: tuple[float, float, float, float]
    """An old infarct: centre and radius; radius 0 for none."""
    swelling: tuple[float, float, float, float]
    """Traumatic swelling of the scalp: location and thickness; 0 for none."""
    falx: float
    """Half thickness of falx and tentorium."""
    warp: tuple[Waves, Waves, Waves]
    """Deforms the whole head."""
    ripple: tuple[Waves, Waves, Waves]
    """Makes the organs of the brain irregular."""
    sulci: Waves
    """Its zeros are the deep sulci."""
    shallow: Waves
    """Its zeros are the shallow sulci between the deep ones."""
    folia: Waves
    """Its zeros are the fissures of the cerebellum."""
    depth: Waves
    """Local variation of the depth and width of sulci and of the thickness of the skull."""
    mottle: Waves
    """Heterogeneity of white matter."""
    strands: Waves
    """Muscle and fat of the face, marrow of the skull, clots."""


def draw_patient(rng: np.random.Generator) -> Patient:
    """Sample a patient; older heads have wider sulci, larger ventricles and more calcifications."""
    age = float(np.clip(rng.normal(60, 19), 18, 95))
    atrophy = float(np.clip((age - 25) / 60 + rng.normal(0, 0.17), 0.05, 1.2))
    size = rng.normal(1.0, 0.03)
    return Patient(
        tissue=_draw_tissue(rng, age),
        scale=(
            size * rng.normal(1.0, 0.03),
            size * rng.normal(1.0, 0.025),
            size * rng.normal(1.0, 0.03),
        ),
        egg=rng.uniform(0.06, 0.2),
        skull=float(np.clip(rng.normal(6.3, 1.2), 4.0, 10.0)),
        scalp=float(np.clip(rng.normal(5.2, 1.5), 2.8, 11.0)),
        atrophy=atrophy,
        ventricles=float(np.clip(0.72 + 0.42 * atrophy + rng.normal(0, 0.1), 0.55, 1.7)),
        leukoaraiosis=max(0.0, (age - 55) / 6 + rng.normal(0, 2)),
        air=(rng.uniform(0.2, 1.4), rng.uniform(0.5, 1.2), rng.uniform(0.7, 1.1), rng.uniform(0.3, 1.1)),
        calcium=_draw_calcium(rng),
        dominance=rng.uniform(-0.4, 1.0),
        hygroma=rng.uniform(4.0, 12.0) if rng.random() < 0.05 else 0.0,
        hygroma_side=float(rng.choice([-1.0, 1.0])),
        infarct=_draw_infarct(rng),
        swelling=_draw_swelling(rng),
        falx=rng.uniform(0.4, 1.0),
        warp=_draw_triple(rng, 110, 8, 0.15),
        sulci=draw_waves(rng, rng.uniform(19.5, 23.5), 24, 0.25, 1.8),
        shallow=draw_waves(rng, 15, 18, 0.25, 1.8),
        ripple=_draw_triple(rng, 24, 9, 0.3),
        folia=draw_waves(rng, 10.0, 14, 0.2, 2.5),
        depth=draw_waves(rng, 38, 12),
        mottle=draw_waves(rng, 16, 16, 0.4),
        strands=draw_waves(rng, 17, 14, 0.3),
    )


def _draw_calcium(rng: np.random.Generator) -> Calcium:
    """Sample calcifications: often pineal and choroid plexus, rarely pallidum and falx."""
    return Calcium(
        pineal=rng.uniform(1.0, 2.8) if rng.random() < 0.65 else 0.0,
        choroid=rng.uniform(1.2, 3.6) if rng.random() < 0.5 else 0.0,
        basal=rng.uniform(1.5, 4.0) if rng.random() < 0.12 else 0.0,
        falx=rng.uniform(3.0, 9.0) if rng.random() < 0.15 else 0.0,
        hu=rng.uniform(110, 420),
    )


def _draw_triple(
    rng: np.random.Generator, wavelength: float, n: int, spread: float
) -> tuple[Waves, Waves, Waves]:
    """Sample noise for displacements along x, y and z."""
    x, y, z = (draw_waves(rng, wavelength, n, spread) for _ in range(3))
    return x, y, z


def _draw_infarct(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Sample an old infarct, which one in eight heads has."""
    side, radius = float(rng.choice([-1, 1])), rng.uniform(6, 20) if rng.random() < 0.12 else 0.0
    return side * rng.uniform(25, 50), rng.uniform(-45, 60), rng.uniform(-5, 45), radius


def _draw_swelling(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Sample a swelling of the scalp, which one in six heads has."""
    a, e = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1.1)
    thick = rng.uniform(3, 11) if rng.random() < 0.17 else 0.0
    return 72 * np.cos(a) * np.cos(e), 90 * np.sin(a) * np.cos(e), 80 * np.sin(e), thick


def _draw_tissue(rng: np.random.Generator, age: float) -> Tissue:
    """Sample the attenuations; the scanner's calibration shifts grey and white matter together."""
    shift = rng.normal(0.8, 2.2)
    vein = rng.normal(52, 5) if rng.random() > 0.08 else rng.uniform(62, 72)
    return Tissue(
        grey=40.0 + shift,
        white=40.0 + shift - float(np.clip(rng.normal(8.4 - 0.02 * (age - 50), 1.3), 5, 11)),
        csf=rng.normal(7, 2),
        vein=vein,
        dura=rng.normal(52, 5),
        table=rng.normal(1500, 120),
        diploe=rng.normal(650, 150),
        fat=rng.normal(-98, 7),
        muscle=rng.normal(56, 4),
    )


def to_template(p: Points, patient: Patient) -> Points:
    """Map points of the patient's head, mm, to the template in which the structures are defined."""
    x, y, z = (v / np.float32(s) for v, s in zip(p, patient.scale, strict=True))
    q = Points(x, y, z)
    dx, dy, dz = (_bend(w, q) for w in patient.warp)
    return Points(x + dx, y + dy, z + dz)


def rippled(p: Points, patient: Patient) -> Points:
    """Displace points by about 1.5 mm, which makes the structures of the template irregular, mm."""
    dx, dy, dz = (np.float32(1.5) * wave_noise(w, p) for w in patient.ripple)
    return Points(p.x + dx, p.y + dy, p.z + dz)


def _bend(waves: Waves, p: Points) -> F32:
    """A displacement of about 2 mm."""
    bend: F32 = wave_noise(waves, p) * np.float32(1.8)
    return bend
