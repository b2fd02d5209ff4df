"""Apply bleeds: depth fields of sampled bleeds, and the space that they take from the brain."""

import numpy as np

from rsna_seq.phantom.bleeds import Bleed
from rsna_seq.phantom.brain import tentorium
from rsna_seq.phantom.fields import F32, Points, Shape, common, ellipsoid, smoothstep, union, wave_noise

OUTSIDE = frozenset({"epidural", "subdural", "hygroma"})
"""Types between skull and brain, which displace brain."""


def bleed_depth(b: Bleed, p: Points, gravity: F32, inside: dict[str, F32]) -> F32:
    """Depth in a bleed, mm.

    Args:
        b: The bleed.
        p: Points of the template, before displacement by bleeds, mm.
        gravity: Distance of the points in the direction of the table, mm.
        inside: The fields ``cavity`` and, except for epidural and subdural bleeds, ``pia`` and ``vent``.

    Returns:
        Depth; for a subarachnoid bleed the depth in its region, whose fluid is filled with blood.
    """
    cavity = inside["cavity"]
    if b.kind == "epidural":
        return common(cavity, ellipsoid(p, Shape(b.centre, b.radii, b.turn)) + _edge(b, p, 0.04))
    if b.kind in {"subdural", "hygroma"}:
        return _subdural(b, p, cavity)
    if b.kind == "intraventricular":
        return common(inside["vent"], _settled(b, p, gravity))
    region = ellipsoid(p, Shape(b.centre, b.radii, b.turn))
    if b.kind == "subarachnoid":
        return region + _edge(b, p, 0.25)
    return common(region + _edge(b, p, 0.13), common(inside["pia"], -inside["vent"] + 1.0))


def _edge(b: Bleed, p: Points, share_of_size: float) -> F32:
    """Irregularity of the edge, mm."""
    edge: F32 = np.float32(share_of_size * min(b.radii)) * wave_noise(b.ragged, p)
    return edge


def _subdural(b: Bleed, p: Points, cavity: F32) -> F32:
    """A crescent on the convexity, or a layer on falx or tentorium."""
    thick, length, height = b.radii
    side = np.float32(np.sign(b.centre[0]))
    if b.site == "convexity":
        u, v = (p.y - b.centre[1]) / length, (p.z - b.centre[2]) / height
        bulge = np.maximum(1 - u * u - v * v, -0.6)
        rise = np.clip((side * p.x - 2 - 36 * smoothstep(-p.z, 0, 25)) / 14, -0.5, 1)
        local = np.float32(thick) * np.minimum(bulge, rise) * (1 + 0.12 * wave_noise(b.ragged, p))
        return common(cavity, (local - cavity).astype(np.float32))
    patch = ellipsoid(p, Shape(b.centre, (40, length, height)))
    away = side * (p.x - 0.8 * np.sin(p.y / 23 + p.z / 31)) if b.site == "falx" else tentorium(p)
    falx = common(
        np.float32(thick / 2) - np.abs(away - np.float32(thick / 2)), common(cavity - 1, patch * 0.3)
    )
    outer = -ellipsoid(Points(np.zeros_like(p.x), p.y, p.z), Shape((0, -2, 0), (1e3, 50, 34)))
    notch = -ellipsoid(Points(p.x, p.y, np.zeros_like(p.z)), Shape((0, 12, 0), (21, 34, 1e3)))
    border = common(outer, p.z + 12) if b.site == "falx" else common(notch, p.y - (0.55 * np.abs(p.x) - 4))
    return common(falx, border)


def _settled(b: Bleed, p: Points, gravity: F32) -> F32:
    """Depth below the fluid level of the blood; the level is lower on the other side."""
    level = b.centre[1]
    other = np.where(np.sign(p.x) == np.sign(b.centre[0] or 1.0), 0, np.abs(b.centre[0]))
    middle = np.abs(p.x) < 7
    if b.site == "cast":
        other = np.where(middle, -30, other)
    return (gravity - level - other).astype(np.float32)


def outside_room(depths: list[F32], cavity: F32) -> F32:
    """Depth below the inner table, or below bleeds outside the brain, mm."""
    room = cavity
    for depth in depths:
        room = common(room, -depth)
    return room


def oedema(bleeds: tuple[Bleed, ...], depths: list[F32], like: F32) -> F32:
    """Oedema of the brain next to the clots, 0 to 1; an array of the shape of ``like``."""
    wet = np.zeros_like(like)
    for b, depth in zip(bleeds, depths, strict=True):
        if b.rim:
            wet = union(wet, np.clip(1.2 + depth / np.float32(b.rim), 0, 1))
    return wet
