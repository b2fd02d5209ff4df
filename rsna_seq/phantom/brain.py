"""The brain: ventricles, sulci, cisterns, deep grey nuclei, dura with its sinuses, and calcifications.

Sulci are the zeros of band-limited noise that is nearly constant with depth, which gives a folding similar to
gyri; their width and depth increase with atrophy (cortex 2.5 to 3 mm thick, sulci up to 20 mm deep: Fischl B,
Dale AM, PNAS 2000). Ventricles, nuclei and cisterns are ellipsoids after Talairach J, Tournoux P, Co-planar
Stereotaxic Atlas (1988), relative to the foramina of Monro.
"""

import numpy as np

from rsna_seq.phantom.fields import (
    F32,
    Points,
    Shape,
    common,
    ellipsoid,
    mirrored,
    smoothstep,
    tube,
    union,
    wave_distance,
    wave_noise,
)
from rsna_seq.phantom.patient import Patient, rippled
from rsna_seq.phantom.skull import sides

_LATERAL = (
    (17.0, -38.0, 6.0, 3.4),
    (11.5, -27.0, 10.0, 6.0),
    (9.0, -10.0, 15.0, 6.0),
    (12.5, 12.0, 19.0, 6.6),
    (22.0, 30.0, 14.0, 8.2),
    (27.0, 46.0, 6.0, 5.6),
    (26.0, 61.0, 3.0, 2.4),
)
"""The lateral ventricle from the frontal to the occipital horn: x, y, z and radius."""
_TEMPORAL = (
    (22.0, 31.0, 10.0, 5.0),
    (31.0, 22.0, -8.0, 2.6),
    (34.0, 4.0, -19.0, 2.2),
    (30.0, -9.0, -22.0, 1.6),
)
_ARTERIES = (
    ((0.0, 3.0, -52.0, 1.8), (0.0, -3.0, -28.0, 1.7)),
    ((9.0, -13.0, -30.0, 2.2), (9.0, -16.0, -21.0, 1.9), (24.0, -16.0, -16.0, 1.5), (39.0, -14.0, -9.0, 1.1)),
    ((9.0, -16.0, -21.0, 1.4), (2.0, -24.0, -17.0, 1.3), (1.5, -44.0, 8.0, 1.1)),
)
_CISTERNS = (
    Shape((0, -13, -22), (11, 9, 6)),
    Shape((0, 31, -10), (12, 3.5, 6)),
    Shape((0, 2, -17), (3.5, 4.5, 8)),
    Shape((0, 66, -70), (16, 12, 10)),
    Shape((0, 76, -50), (3.0, 11, 18)),
)
_SYLVIAN = (
    Shape((41, -4, 2), (1.5, 22, 13), 8),
    Shape((52, -10, 2), (14, 2.0, 5), 20),
    Shape((30, -22, -16), (16, 2.2, 3), 15),
)
_CALLOSUM = Shape((0, -2, 4), (1e3, 42, 24))
"""Where the hemispheres are connected, in the plane of y and z."""
_STEM = Shape((0, 17, -34), (14, 13, 40))


def brain_fields(p: Points, patient: Patient, cavity: F32) -> dict[str, F32]:
    """Depths and distances of the structures inside the skull.

    Args:
        p: Points of the template, before displacement by bleeds, mm.
        patient: The patient.
        cavity: Depth below the inner table, or below an extra-axial bleed, mm.

    Returns:
        By name, mm: ``pia`` (depth in the brain), ``rind`` (depth below its surface, the
        midline's too), ``sulcus`` and ``shallow`` (signed distances to the
        nearest deep and shallow sulcus), ``gate`` (how far below the floor of the deep ones), ``reach``
        (half width of a sulcus), ``vent``, ``csf`` (cisterns), ``nuclei``, ``stem``,
        ``hind`` (posterior fossa), ``calcium``, ``artery``; and ``white``, HU to add to white matter.
    """
    infra = infratentorial(p)
    vent = ventricles(p, patient)
    lively = wave_noise(patient.depth, p)
    p = rippled(p, patient)
    m = sides(p)
    pia = cavity - _gap(p, patient, lively)
    return {
        "pia": pia,
        "vent": vent,
        "csf": _cisterns(p, patient, lively),
        "nuclei": _nuclei(m),
        "stem": ellipsoid(p, _STEM),
        "hind": infra,
        "calcium": _calcium(p, m, patient),
        "artery": union(union(tube(m, _ARTERIES[0]), tube(m, _ARTERIES[1])), tube(m, _ARTERIES[2])),
        "white": _white(p, patient, vent),
        **_sulci(p, patient, pia, infra, lively),
    }


def dura_fields(p: Points, patient: Patient, cavity: F32) -> dict[str, F32]:
    """Falx, tentorium and venous sinuses, which bleeds hardly displace.

    Returns:
        By name, mm: ``falx`` and ``tent`` (signed distances), ``falx_in`` and ``tent_in`` (depth inside their
        borders), ``vein`` (depth in a venous sinus).
    """
    falx = p.x - 0.8 * np.sin(p.y / 23 + p.z / 31)
    falx_in = common(
        -ellipsoid(Points(np.zeros_like(p.x), p.y, p.z), Shape((0, -2, 0), (1e3, 50, 34))), p.z + 12
    )
    tent = tentorium(p)
    notch = -ellipsoid(Points(p.x, p.y, np.zeros_like(p.z)), Shape((0, 12, 0), (21, 34, 1e3)))
    tent_in = common(notch, p.y - (0.55 * np.abs(p.x) - 4))
    sagittal = common(4.2 - np.hypot(falx, cavity * 0.8), p.z + 20)
    width = 3.6 + np.float32(1.6 * patient.dominance) * -np.sign(p.x)
    transverse = common(width - np.hypot(tent, cavity * 0.8), p.y - 32)
    straight = common(2.2 - np.hypot(falx, tent - 1), p.y - 46)
    return {
        "falx": falx.astype(np.float32),
        "falx_in": falx_in,
        "tent": tent,
        "tent_in": tent_in,
        "vein": union(union(sagittal, transverse), straight),
    }


def tentorium(p: Points) -> F32:
    """Height above the tentorium, mm, measured across it."""
    ridge = -6 - 0.33 * np.sqrt(p.x * p.x + 40) - 0.22 * np.maximum(p.y - 25, 0)
    return ((p.z - ridge) * 0.92).astype(np.float32)


def infratentorial(p: Points) -> F32:
    """Depth in the posterior fossa: below the tentorium and behind the petrous ridges, mm."""
    return common(-tentorium(p), p.y - (0.55 * np.abs(p.x) - 6))


def ventricles(p: Points, patient: Patient) -> F32:
    """Depth in the ventricles, lateral, third and fourth, mm."""
    size = patient.ventricles
    m = sides(p)
    knots = [(x, y, z, r * size**1.3) for x, y, z, r in _LATERAL]
    horn = [(x, y, z, r * size**1.6 - 0.4) for x, y, z, r in _TEMPORAL]
    depth = union(tube(m, knots, 2.0), tube(m, horn), 3.0)
    septum = np.abs(p.x) - np.float32(0.8)
    depth = common(depth, septum)
    third = ellipsoid(p, Shape((0, 0, -4), (1.2 + 2.2 * size * patient.atrophy, 13, 10)))
    fourth = ellipsoid(p, Shape((0, 36, -40), (6 * size, 4.5 * size, 9)))
    return union(depth, union(third, fourth))


def _gap(p: Points, patient: Patient, lively: F32) -> F32:
    """Width of the fluid between skull and brain, mm; wider frontally in old patients."""
    front = smoothstep(-p.y, 0, 70)
    gap = 0.1 + patient.atrophy * (0.5 + 1.5 * front + 0.9 * lively)
    return np.maximum(gap, 0.0).astype(np.float32)


def _sulci(p: Points, patient: Patient, pia: F32, infra: F32, lively: F32) -> dict[str, F32]:
    """Distances to the sulci of cerebrum and cerebellum, depth below their floor and half width."""
    radius = np.sqrt((p.x / 68) ** 2 + ((p.y - 3) / 84) ** 2 + ((p.z - 5) / 74) ** 2) + 0.05
    stretch = np.float32(0.92) * radius ** np.float32(-0.88)
    outward = Points(p.x * stretch, p.y * stretch, p.z * stretch)
    side = smoothstep(infra, -2, 2)
    deep = wave_distance(patient.sulci, outward) / stretch
    deep = deep + side * (wave_distance(patient.folia, p) - deep)
    floor = (16 + 4 * lively) * (1 - side) + 15 * side
    high = (1 + 0.5 * smoothstep(p.z, 20, 60)) * (0.15 + 0.85 * smoothstep(radius, 0.45, 0.85))
    width = (0.48 + 0.7 * patient.atrophy) * high * (1 + 0.25 * lively)
    reach = np.maximum(width * (1 - side) + (0.3 + 0.3 * patient.atrophy) * side, 0.05)
    callosum = -ellipsoid(Points(np.zeros_like(p.x), p.y, p.z), _CALLOSUM)
    rind = np.minimum(pia, 1.4 * np.abs(p.x) + np.maximum(-callosum, 0) + 12 * side)
    return {
        "rind": rind,
        "sulcus": deep,
        "shallow": wave_distance(patient.shallow, outward) / stretch + 20 * side,
        "gate": rind - floor,
        "reach": reach,
    }


def _cisterns(p: Points, patient: Patient, lively: F32) -> F32:
    """Depth in the basal cisterns, the Sylvian fissures and the interhemispheric fissure, mm."""
    grow = 0.75 + 0.5 * patient.atrophy
    depth = ellipsoid(p, _CISTERNS[0])
    for shape in _CISTERNS[1:]:
        depth = union(depth, ellipsoid(p, Shape(shape.centre, _grown(shape.radii, grow))), 2.0)
    for shape in _SYLVIAN:
        depth = union(depth, mirrored(p, Shape(shape.centre, _grown(shape.radii, grow), shape.turn)), 2.0)
    stem = ellipsoid(p, _STEM)
    low = common(-4 - p.z, np.maximum(p.z + 23, 6 - p.y), 3.0)
    ends = 0.35 + 1.7 * smoothstep(np.abs(p.y - 15), 6, 13) + 0.4 * lively
    ring = common(np.float32(grow) * ends - np.abs(stem + 1.6), low, 2.0)
    width = (0.3 + 1.1 * patient.atrophy) * (0.4 + 0.6 * smoothstep(-p.y, -10, 60))
    callosum = -ellipsoid(Points(np.zeros_like(p.x), p.y, p.z), _CALLOSUM)
    fissure = common((width - np.abs(p.x)).astype(np.float32), common(callosum, p.z + 14), 1.0)
    return union(union(depth, ring), fissure)


def _grown(radii: tuple[float, float, float], by: float) -> tuple[float, float, float]:
    """Multiply radii by a factor."""
    return radii[0] * by, radii[1] * by, radii[2] * by


def _nuclei(m: Points) -> F32:
    """Depth in thalamus, caudate and lentiform nucleus, mm."""
    nuclei = ellipsoid(m, Shape((11, 9, 2), (8, 13, 9), -20))
    nuclei = union(nuclei, ellipsoid(m, Shape((14, -21, 6), (5, 10, 9), 12)))
    return union(nuclei, ellipsoid(m, Shape((26, -5, 1), (7, 17, 9), 14)))


def _calcium(p: Points, m: Points, patient: Patient) -> F32:
    """Depth in calcifications of pineal, choroid plexus, pallidum and falx, mm."""
    depth = np.full_like(p.x, -50)
    if patient.calcium.pineal:
        depth = union(depth, ellipsoid(p, Shape((0.5, 28, -2), (patient.calcium.pineal,) * 3)))
    if patient.calcium.choroid:
        r = patient.calcium.choroid
        depth = union(depth, ellipsoid(m, Shape((22, 32, 11), (0.7 * r, 1.3 * r, r), -30)))
    if patient.calcium.basal:
        r = patient.calcium.basal
        depth = union(depth, ellipsoid(m, Shape((20, -2, 1), (0.7 * r, r, r))))
    if patient.calcium.falx:
        r = patient.calcium.falx
        depth = union(depth, ellipsoid(p, Shape((0.8, -58, 34), (1.5, r, r))))
    return depth


def _white(p: Points, patient: Patient, vent: F32) -> F32:
    """HU to add to white matter: periventricular leukoaraiosis, an old infarct, texture."""
    beside = np.exp(np.minimum(vent, 0) / 6)
    x, y, z, radius = patient.infarct
    mottle = wave_noise(patient.mottle, p)
    added = -patient.leukoaraiosis * beside + 1.1 * mottle
    if radius:
        scar = ellipsoid(p, Shape((x, y, z), (radius, 1.2 * radius, radius)))
        added = added - 18 * smoothstep(scar + 2 * mottle, -2, 4)
    return added.astype(np.float32)
