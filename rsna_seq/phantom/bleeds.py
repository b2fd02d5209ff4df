"""Bleeds: location, size and density of each type; sampled here, and applied later as depth fields.

Blood has 45 to 80 HU (Parizel PM et al., Eur Radiol 2001). An epidural bleed is a lens on the inner table; a
subdural bleed is a crescent along the convexity, the falx or the tentorium; subarachnoid blood is in sulci
and cisterns; intraventricular blood settles with a fluid level in the occipital horns; an intraparenchymal
bleed has an irregular edge and a rim of oedema (Osborn AG, Osborn's Brain, 2nd ed., chs. 2 and 4).
"""

from dataclasses import dataclass

import numpy as np

from rsna_seq.phantom.fields import F32, Points, Waves, draw_waves

KINDS = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
"""The five types, in the order of the labels."""


@dataclass(frozen=True)
class Bleed:
    """One bleed, in mm of the template."""

    kind: str
    """One of :data:`KINDS`, or ``hygroma``: a chronic, hypodense collection that has no label."""
    site: str
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    """Half extents; for a subdural crescent: thickness, half length, half height."""
    turn: float
    hu: float
    mixed: float
    """Heterogeneity of the clot, HU."""
    sediment: float
    """Decrease of HU from the dependent part upwards, HU per mm."""
    rim: float
    """Width of the oedema, mm."""
    push: float
    """Displacement of the adjacent brain, mm."""
    ragged: Waves


def draw_bleed(rng: np.random.Generator, kind: str, grow: float = 1.0) -> tuple[Bleed, ...]:
    """Sample one bleed of a type, or the several parts that it consists of.

    Args:
        rng: Random generator.
        kind: One of :data:`KINDS`.
        grow: Scale factor of the size, for bleeds that must be visible.
    """
    draw = {
        "epidural": _draw_epidural,
        "intraparenchymal": _draw_intraparenchymal,
        "intraventricular": _draw_intraventricular,
        "subarachnoid": _draw_subarachnoid,
        "subdural": _draw_subdural,
    }[kind]
    return draw(rng, grow)


def draw_hygroma(rng: np.random.Generator, thickness: float, side: float) -> Bleed:
    """A chronic collection with nearly the density of fluid: a negative that resembles a subdural bleed."""
    centre = (side, rng.uniform(-25, 5), rng.uniform(20, 40))
    radii = (thickness, rng.uniform(55, 85), rng.uniform(40, 65))
    return _bleed(
        rng, "hygroma", "convexity", centre, radii, hu=rng.uniform(10, 20), mixed=1.0, push=0.3 * thickness
    )


def surface_point(azimuth: float, elevation: float) -> tuple[float, float, float]:
    """Point of the template's inner table in a direction, degrees; azimuth 0 is left, 90 the back."""
    a, e = np.radians(azimuth), np.radians(elevation)
    d = np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
    r = np.sum(np.abs(d / np.array([68, 84, 74])) ** 2.3) ** (-1 / 2.3)
    x, y, z = d * r + np.array([0, 3, 5])
    return float(x), float(y), float(z)


def push_points(p: Points, bleeds: tuple[Bleed, ...]) -> Points:
    """Original position of the brain tissue at ``p`` before it was displaced by the bleeds, mm."""
    x, y, z = p
    for b in bleeds:
        if b.push < 0.5:
            continue
        cx, cy, cz = surface_near(b) if b.kind in {"subdural", "hygroma"} else b.centre
        dx, dy, dz = cx - x, cy - y, cz - z
        distance = np.sqrt(dx * dx + dy * dy + dz * dz) + np.float32(1.0)
        reach = 28 + 0.8 * max(b.radii)
        near = np.float32(b.push) * np.exp(-np.maximum(distance - 0.8 * min(b.radii), 0) / np.float32(reach))
        near = near / distance
        x, y, z = x + dx * near, y + dy * near, z + dz * near
    return Points(x, y, z)


def surface_near(b: Bleed) -> tuple[float, float, float]:
    """Centre of a crescent on the inner table."""
    return 62 * float(np.sign(b.centre[0])), b.centre[1], b.centre[2]


def _bleed(
    rng: np.random.Generator,
    kind: str,
    site: str,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    *,
    hu: float,
    turn: float = 0.0,
    mixed: float = 3.0,
    sediment: float = 0.0,
    rim: float = 0.0,
    push: float = 0.0,
) -> Bleed:
    """Make a bleed with an irregular edge that is scaled to its size."""
    wavelength = float(np.clip(1.1 * max(radii), 6, 30))
    return Bleed(
        kind, site, centre, radii, turn, hu, mixed, sediment, rim, push, draw_waves(rng, wavelength, 10, 0.4)
    )


def _acute(rng: np.random.Generator) -> float:
    """Sample the density of a clot, HU: mostly acute, some nearly isodense to brain."""
    return float(np.clip(rng.normal(66, 8), 46, 80)) if rng.random() > 0.15 else float(rng.uniform(45, 54))


def _size(rng: np.random.Generator, low: float, high: float, grow: float) -> float:
    """Sample a size between two bounds, with small sizes more often."""
    return float(low * (high / low) ** rng.beta(1.1, 1.3)) * grow


def _draw_epidural(rng: np.random.Generator, grow: float) -> tuple[Bleed, ...]:
    """A lens: mostly temporal, otherwise frontal, parietal or over the cerebellum."""
    site = str(rng.choice(["temporal", "parietal", "frontal", "posterior"], p=[0.55, 0.2, 0.15, 0.1]))
    ranges = {"temporal": (-35, 15, -20, 12), "parietal": (5, 45, 15, 45), "frontal": (-75, -45, 5, 35),
              "posterior": (50, 75, -38, -25)}  # fmt: skip
    a0, a1, e0, e1 = ranges[site]
    azimuth = rng.uniform(a0, a1)
    x, y, z = surface_point(azimuth, rng.uniform(e0, e1))
    side = float(rng.choice([-1, 1]))
    thick = _size(rng, 4.5, 26, grow)
    length = float(np.clip(thick * rng.uniform(1.3, 2.4) + 8, 12, 48))
    radii = (thick, length, length * rng.uniform(0.75, 1.0))
    turn = azimuth if side > 0 else 180 - azimuth
    main = _bleed(rng, "epidural", site, (side * x, y, z), radii, hu=max(_acute(rng), 52), turn=turn,
                  mixed=rng.uniform(1, 8), push=0.45 * thick)  # fmt: skip
    return (main,)


def _draw_subdural(rng: np.random.Generator, grow: float) -> tuple[Bleed, ...]:
    """A crescent over one or both hemispheres, or a layer along falx or tentorium."""
    site = str(rng.choice(["convexity", "falx", "tentorium", "both"], p=[0.66, 0.14, 0.08, 0.12]))
    side = float(rng.choice([-1, 1]))
    if site in {"falx", "tentorium"}:
        thick = _size(rng, 1.8, 6, grow)
        where = (
            (side, rng.uniform(-45, 60), rng.uniform(15, 50)) if site == "falx" else (side * 25, 45.0, -18.0)
        )
        radii = (thick, rng.uniform(26, 55), rng.uniform(18, 35))
        return (_bleed(rng, "subdural", site, where, radii, hu=_acute(rng), mixed=2.0),)
    return tuple(_crescent(rng, s, grow) for s in ((side, -side) if site == "both" else (side,)))


def _crescent(rng: np.random.Generator, side: float, grow: float) -> Bleed:
    """One crescent; older blood is less dense and settles."""
    thick = _size(rng, 2.6, 20, grow)
    centre = (side, rng.uniform(-35, 40), rng.uniform(0, 45))
    radii = (thick, rng.uniform(40, 88), rng.uniform(26, 60))
    old = rng.random() < 0.25
    return _bleed(
        rng, "subdural", "convexity", centre, radii,
        hu=float(rng.uniform(45, 55)) if old else _acute(rng),
        mixed=rng.uniform(4, 14) if old else rng.uniform(1, 6),
        sediment=rng.uniform(0.05, 0.3) if old else 0.0,
        push=0.6 * thick if thick > 5 else 0.0,
    )  # fmt: skip


def _draw_subarachnoid(rng: np.random.Generator, grow: float) -> tuple[Bleed, ...]:
    """Blood around the circle of Willis (aneurysm), or in the sulci of one or two regions (trauma)."""
    hu = float(np.clip(rng.normal(60, 8), 46, 76))
    if rng.random() < 0.38:
        r = _size(rng, 14, 46, grow)
        centre = (rng.uniform(-14, 14), rng.uniform(-25, 5), rng.uniform(-24, -12))
        return (_bleed(rng, "subarachnoid", "basal", centre, (1.15 * r, r, 0.75 * r), hu=hu, mixed=4.0),)
    pieces = []
    for _ in range(1 + int(rng.random() < 0.5) + int(rng.random() < 0.3)):
        x, y, z = surface_point(rng.uniform(-80, 80), rng.uniform(-12, 68))
        r = _size(rng, 12, 42, grow)
        centre = (float(rng.choice([-1, 1])) * x * 0.93, y * 0.93, z * 0.93)
        pieces.append(_bleed(rng, "subarachnoid", "sulci", centre, (r, r, 0.8 * r), hu=hu, mixed=4.0))
    return tuple(pieces)


def _draw_intraventricular(rng: np.random.Generator, grow: float) -> tuple[Bleed, ...]:
    """Settled blood in the occipital horns; large bleeds fill one side and the third and fourth ventricle."""
    amount = float(np.clip(rng.beta(0.8, 1.5) * grow, 0.0, 1.0))
    side = float(rng.choice([-1, 1]))
    uneven = rng.uniform(0, 14) if rng.random() < 0.7 else 40.0
    level = 57 - 75 * amount
    site = "cast" if amount > 0.6 else "level"
    return (
        _bleed(
            rng,
            "intraventricular",
            site,
            (side * uneven, level, 0.0),
            (20, 20, 20),
            hu=_acute(rng),
            mixed=3.0,
        ),
    )


_DEEP = {
    "putamen": (27, -3, 3), "thalamus": (12, 10, 4), "caudate": (13, -20, 8), "pons": (2, 12, -42),
    "cerebellum": (24, 50, -46),
}  # fmt: skip


def _draw_intraparenchymal(rng: np.random.Generator, grow: float) -> tuple[Bleed, ...]:
    """Deep hypertensive bleeds, lobar bleeds, contusions near the base, and axonal shear injuries."""
    kind = str(rng.choice(["deep", "lobar", "contusion", "speck"], p=[0.4, 0.28, 0.24, 0.08]))
    side = float(rng.choice([-1, 1]))
    if kind == "deep":
        site = str(rng.choice(list(_DEEP), p=[0.42, 0.26, 0.06, 0.08, 0.18]))
        x, y, z = (c + rng.normal(0, 2.5) for c in _DEEP[site])
        return (_clot(rng, site, (side * x, y, z), _size(rng, 7, 31 if site != "pons" else 13, grow)),)
    if kind == "lobar":
        a, e, r = rng.uniform(-75, 80), rng.uniform(-5, 60), _size(rng, 8, 36, grow)
        x, y, z = (c * (0.92 - 0.9 * r / 80) for c in surface_point(a, e))
        return (_clot(rng, "lobar", (side * x, y, z), r),)
    pieces = []
    for _ in range(int(rng.integers(1, 5))):
        if kind == "contusion":
            spots = ((24, -62, -8), (14, -66, -12), (48, -32, -26), (50, -10, -32), (46, -60, 8))
            x, y, z = (c + rng.normal(0, 4) for c in spots[int(rng.integers(len(spots)))])
            pieces.append(_clot(rng, "contusion", (side * x, y, z), _size(rng, 5.5, 20, grow)))
        else:
            x, y, z = (rng.uniform(12, 45), rng.uniform(-45, 50), rng.uniform(15, 52))
            pieces.append(_clot(rng, "speck", (side * x, y, z), _size(rng, 2.6, 5, grow)))
    return tuple(pieces)


def _clot(rng: np.random.Generator, site: str, centre: tuple[float, float, float], r: float) -> Bleed:
    """A clot of radius ``r`` mm with its oedema."""
    radii = (r * rng.uniform(0.75, 1.0), r * rng.uniform(0.95, 1.3), r * rng.uniform(0.8, 1.1))
    rim = rng.uniform(1.5, 3.5) + rng.uniform(0, 0.45) * r
    return _bleed(rng, "intraparenchymal", site, centre, radii, hu=_acute(rng), turn=rng.uniform(-40, 40),
                  mixed=rng.uniform(2, 8), rim=rim, push=0.4 * r if r > 7 else 0.0)  # fmt: skip


def clot_unevenness(b: Bleed, noise: F32, height: F32) -> F32:
    """HU to add inside a bleed: texture, and sediment by height in mm."""
    added: F32 = np.float32(b.mixed) * noise * np.float32(0.5) + np.float32(b.sediment) * height
    return added
