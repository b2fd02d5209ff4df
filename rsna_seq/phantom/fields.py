"""Smooth shapes in space: signed depths in mm (positive inside), plane-wave noise, and slab fractions.

All anatomical structures are depth fields that are sampled on a coarse lattice. Depths are nearly linear
close to surfaces, so cubic interpolation to the pixels is accurate, and the fraction of a slab inside a
surface has a closed form in the depths on the slab's two faces: partial volume without supersampling.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.floating[Any]]
"""Type of all fields of the phantom; float32 at run time, which is not visible to the type checker."""


class Points(NamedTuple):
    """Points in space as three arrays of equal shape, in mm: x to the left, y to the back, z up (LPS)."""

    x: F32
    y: F32
    z: F32


class Shape(NamedTuple):
    """An ellipsoid: centre and radii in mm, rotated about z by an angle in degrees."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    turn: float = 0.0


_BLOCK = 4096


@dataclass(frozen=True)
class Waves:
    """Plane waves of random direction and phase, whose sum is band-limited noise of unit variance."""

    k: F32
    """Wave vectors, (wave, 3), rad/mm."""
    phase: F32
    """Phases, (wave,), rad."""


def draw_waves(
    rng: np.random.Generator, wavelength_mm: float, n: int = 20, spread: float = 0.15, tall: float = 1.0
) -> Waves:
    """Sample waves with wavelengths in mm that vary by ``spread`` (relative); ``tall`` stretches z."""
    direction = rng.standard_normal((n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length = wavelength_mm * np.exp(spread * rng.standard_normal((n, 1)))
    k = direction * (2 * np.pi / length) / np.array([1, 1, tall])
    return Waves(k.astype(np.float32), rng.uniform(0, 2 * np.pi, n).astype(np.float32))


def wave_noise(waves: Waves, p: Points) -> F32:
    """Sum of the waves at the points; mean 0, variance 1."""
    total = np.empty(p.x.size, np.float32)
    for part, angle in _angles(waves, p):
        np.cos(angle, out=angle)
        total[part] = angle.sum(axis=0)
    total *= np.float32(np.sqrt(2 / len(waves.phase)))
    return total.reshape(p.x.shape)


def wave_distance(waves: Waves, p: Points) -> F32:
    """Signed distance in mm to the nearest zero of the noise, to first order (value over gradient)."""
    distance = np.empty(p.x.size, np.float32)
    floor = np.float32(0.02 * len(waves.phase) * np.mean(np.sum(waves.k**2, axis=1)))
    for part, angle in _angles(waves, p):
        gradient = np.einsum("wa,wn->an", waves.k, np.sin(angle))
        steep = np.sqrt(np.einsum("an,an->n", gradient, gradient) + floor)
        distance[part] = np.cos(angle, out=angle).sum(axis=0) / steep
    return distance.reshape(p.x.shape)


def _angles(waves: Waves, p: Points) -> Iterator[tuple[slice, F32]]:
    """Phase of each wave at blocks of points, (wave, point), small enough for the cache."""
    x, y, z = (np.ravel(v) for v in p)
    for start in range(0, x.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        angle = waves.k[:, :1] * x[part]
        angle += waves.k[:, 1:2] * y[part]
        angle += waves.k[:, 2:] * z[part]
        angle += waves.phase[:, None]
        yield part, angle


def ellipsoid(p: Points, shape: Shape) -> F32:
    """Depth in mm below an ellipsoid's surface, exact to first order at the surface."""
    x, y, z = p.x - shape.centre[0], p.y - shape.centre[1], p.z - shape.centre[2]
    if shape.turn:
        c, s = np.cos(np.radians(shape.turn)), np.sin(np.radians(shape.turn))
        x, y = np.float32(c) * x + np.float32(s) * y, np.float32(c) * y - np.float32(s) * x
    x, y, z = x / shape.radii[0], y / shape.radii[1], z / shape.radii[2]
    k0 = np.sqrt(x * x + y * y + z * z) + np.float32(1e-4)
    x, y, z = x / shape.radii[0], y / shape.radii[1], z / shape.radii[2]
    k1 = np.sqrt(x * x + y * y + z * z) + np.float32(1e-6)
    depth: F32 = k0 * (1 - k0) / k1
    return depth


def superellipsoid(p: Points, shape: Shape, power: float) -> F32:
    """Depth in mm below a superellipsoid's surface; a power above 2 makes it boxier."""
    ratios = [
        np.abs(v - c) / np.float32(r) + np.float32(1e-3)
        for v, c, r in zip(p, shape.centre, shape.radii, strict=True)
    ]
    rho = sum((r**power for r in ratios), np.zeros_like(p.x)) ** np.float32(1 / power)
    gradient = sum(
        ((r / rho) ** (2 * power - 2) / np.float32(s * s) for r, s in zip(ratios, shape.radii, strict=True)),
        np.zeros_like(p.x),
    )
    depth: F32 = (1 - rho) / np.sqrt(gradient)
    return depth


def tube(p: Points, knots: Sequence[tuple[float, float, float, float]], blend_mm: float = 0.0) -> F32:
    """Depth in a tube through knots (x, y, z, radius), mm; the radius is linear between knots."""
    depth: F32 | None = None
    for (ax, ay, az, ra), (bx, by, bz, rb) in pairwise(knots):
        dx, dy, dz = bx - ax, by - ay, bz - az
        x, y, z = p.x - ax, p.y - ay, p.z - az
        t = np.clip((x * dx + y * dy + z * dz) / (dx * dx + dy * dy + dz * dz), 0, 1)
        x, y, z = x - t * dx, y - t * dy, z - t * dz
        part: F32 = ra + t * (rb - ra) - np.sqrt(x * x + y * y + z * z)
        depth = part if depth is None else union(depth, part, blend_mm)
    assert depth is not None
    return depth


def union(a: F32, b: F32, blend_mm: float = 0.0) -> F32:
    """Depth in the union of two shapes, with the seam rounded over ``blend_mm``."""
    top: F32 = np.maximum(a, b)
    if blend_mm:
        h = np.maximum(blend_mm - np.abs(a - b), 0) / np.float32(blend_mm)
        top = top + h * h * np.float32(blend_mm / 4)
    return top


def common(a: F32, b: F32, blend_mm: float = 0.0) -> F32:
    """Depth in the intersection of two shapes, with the edge rounded over ``blend_mm``."""
    return -union(-a, -b, blend_mm)


def mirrored(p: Points, shape: Shape) -> F32:
    """Depth in an ellipsoid on the left side (x > 0) and its mirror image on the right."""
    return ellipsoid(Points(np.abs(p.x), p.y, p.z), shape)


def share(face0: F32, face1: F32, soft: float) -> F32:
    """Fraction of a slab with positive depth, 0 to 1, from the depths on its two faces.

    Args:
        face0: Depth on the lower face, mm.
        face1: Depth on the upper face, mm.
        soft: Half width of the edge in the plane, mm: half a pixel plus the scanner's blur.
    """
    spread, part = np.minimum(face0, face1), np.maximum(face0, face1)
    np.subtract(part, spread, out=spread)
    spread += np.float32(2 * soft)
    part += np.float32(soft)
    part /= spread
    np.maximum(part, 0, out=part)
    return np.minimum(part, 1, out=part)


def sheet(face0: F32, face1: F32, width: F32, soft: float) -> F32:
    """Fraction of a slab within ``width`` mm on either side of a surface given by signed distances."""
    inside: F32 = share(face0 + width, face1 + width, soft) - share(face0 - width, face1 - width, soft)
    return np.maximum(inside, 0)


def smoothstep(x: F32, low: float, high: float) -> F32:
    """Smooth step from 0 below ``low`` to 1 above ``high``, with zero slope at the ends."""
    t = (x - np.float32(low)) * np.float32(1 / (high - low))
    np.maximum(t, 0, out=t)
    np.minimum(t, 1, out=t)
    result: F32 = (3 - 2 * t) * t
    result *= t
    return result
