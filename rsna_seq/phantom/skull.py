"""Bone, air and soft tissue: the cranial cavity with its three fossae, the skull around it, base and face.

Coordinates are in mm of the template, LPS, with the origin at the foramina of Monro. Sizes follow Gray's
Anatomy (42nd ed., chs. 27 to 32) and published means: inner calvaria 135 x 170 mm, calvarial thickness 6 to
7 mm (Lynnerup N, Forensic Sci Int 2001), orbit 35 x 40 mm, maxillary sinus 34 x 33 x 23 mm
(Emirzeoglu M et al., Surg Radiol Anat 2007), petrous axis 40 to 50 degrees to the midline.
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
    superellipsoid,
    tube,
    union,
    wave_noise,
)
from rsna_seq.phantom.patient import Patient

PETROUS = Shape((36, 13, -40), (33, 8.5, 10), 33)
MASTOID = Shape((54, 24, -46), (10, 14, 20))
ORBIT = Shape((31, -62, -36), (18, 27, 17), -14)
GLOBE = Shape((32, -77, -36), (12, 12, 12))


def sides(p: Points) -> Points:
    """Mirror points to the left side, for bilateral structures."""
    return Points(np.abs(p.x), p.y, p.z)


def skull_fields(p: Points, patient: Patient) -> dict[str, F32]:
    """Depths of all structures except the brain.

    Returns:
        Depths in mm by name: ``cavity`` (all inside the inner table), ``bone``, ``dense`` (petrous bone),
        ``head`` (all inside the skin), ``air``, ``pneumatic`` (honeycombs of bone and air), ``orbit``,
        ``globe``, ``lens``, ``muscle``, ``nerve`` (optic nerve and eye muscles), and the noise ``strands``.
    """
    m = sides(p)
    base = _base(p, m)
    strands = wave_noise(patient.strands, p)
    dense = ellipsoid(m, PETROUS) + 1.6 * strands
    room = common(_cavity(p, patient), -union(base, dense, 3.0), 3.0)
    crest = _crests(p)
    shell = room + _thickness(p, patient)
    room = room - crest
    orbit = common(ellipsoid(m, ORBIT), -(room + 2.2), 3.0)
    air, walls = _sinuses(p, m, patient, 2.0 * strands)
    mastoid = ellipsoid(m, MASTOID)
    bone = union(union(shell, base, 3.0), union(dense, mastoid, 3.0))
    rim = common(orbit + 2.4, p.y + 84)
    bone = union(bone, union(rim, union(walls, _face_bones(m))))
    pneumatic = union(mastoid * np.float32(patient.air[3]) - 1.5, _ethmoid(p))
    globe = ellipsoid(m, GLOBE)
    return {
        "cavity": room,
        "bone": bone,
        "dense": dense,
        "head": union(_skin(p, m, shell, patient), globe + 1.0),
        "air": union(air, _canals(p, m)),
        "pneumatic": pneumatic,
        "orbit": orbit,
        "globe": globe,
        "lens": ellipsoid(m, Shape((32, -86, -36), (4.8, 2.2, 4.8))),
        "muscle": union(_muscles(m), _swelling(p, patient) - 2),
        "nerve": _nerves(m),
        "strands": strands,
    }


def _cavity(p: Points, patient: Patient) -> F32:
    """The cranial cavity: vault, middle and posterior fossa, and the spinal canal below."""
    front = np.clip(-p.y / 80, 0, 1.2)
    narrow = Points(p.x / (1 - np.float32(patient.egg) * front * front), p.y, p.z)
    vault = superellipsoid(narrow, Shape((0, 3, 5), (68, 84, 74)), 2.3)
    ax = np.abs(p.x)
    roof = 9 * np.exp(-(((ax - 28) / 15) ** 2) - ((p.y + 45) / 25) ** 2) - 5 * np.exp(-((ax / 7) ** 2))
    floor = -20 + roof - 20 * smoothstep(p.y, -34, 4)
    room = common(vault, p.z - floor.astype(np.float32), 6.0)
    room = union(room, mirrored(p, Shape((37, -15, -22), (27, 36, 25))), 8.0)
    behind = p.y + 0.49 * (p.z + 47) - 3 - 0.18 * ax
    room = union(room, common(ellipsoid(p, Shape((0, 40, -36), (57, 47, 43))), behind, 5.0), 8.0)
    canal = common(15 - np.hypot(p.x, (p.y - 30) * 1.1), -60 - p.z, 4.0)
    return union(room, canal, 4.0)


def _thickness(p: Points, patient: Patient) -> F32:
    """Thickness of the skull, mm: thin temporal squama and base, thick occiput and forehead midline."""
    ax = np.abs(p.x)
    squama = np.exp(-(((ax - 62) / 22) ** 2) - ((p.y + 5) / 40) ** 2 - ((p.z + 12) / 30) ** 2)
    low = 1 - 0.45 * smoothstep(-p.z, 12, 45)
    waviness = 1 + 0.08 * wave_noise(patient.depth, p)
    t = patient.skull * low * waviness * (1 - 0.45 * squama)
    result: F32 = t.astype(np.float32)
    return result


def _crests(p: Points) -> F32:
    """Bone that protrudes into the cavity, mm: the internal occipital protuberance and the frontal crest."""
    ax = np.abs(p.x)
    occiput = np.exp(-((ax / 12) ** 2) - ((p.y - 85) / 22) ** 2 - ((p.z + 28) / 18) ** 2)
    frontal = np.exp(-((ax / 5) ** 2) - ((p.y + 80) / 16) ** 2 - ((p.z - 0) / 26) ** 2)
    crest: F32 = 6 * occiput + 4.5 * frontal
    return crest


def _base(p: Points, m: Points) -> F32:
    """Sphenoid body, clivus and lesser wings: the bone between the fossae."""
    body = ellipsoid(p, Shape((0, -24, -36), (15, 19, 14)))
    slanted = Points(p.x, p.y - (5 - 0.49 * (p.z + 47)), p.z)
    clivus = ellipsoid(slanted, Shape((0, 0, -48), (13, 5.5, 26)))
    wing = ellipsoid(m, Shape((32, -41, -20), (30, 3.5, 5), -22))
    greater = ellipsoid(m, Shape((36, -46, -36), (20, 4, 14), 40))
    condyle = ellipsoid(m, Shape((19, 26, -86), (8, 13, 10)))
    return union(union(body, clivus, 6.0), union(union(wing, greater, 3.0), condyle), 4.0)


def _face_bones(m: Points) -> F32:
    """Zygomatic arch, mandible with its condyle, pterygoid plate, lateral orbital pillar."""
    parts = (
        Shape((65, -36, -52), (3.5, 27, 4.5), 4),
        Shape((52, -6, -58), (9, 5, 7)),
        Shape((50, -20, -90), (4.5, 15, 33)),
        Shape((17, -30, -66), (2.5, 9, 16), 20),
        Shape((48, -68, -40), (5, 9, 14), 30),
        Shape((52, -64, -58), (9, 7, 7), 30),
        Shape((9, -88, -42), (3.5, 9, 16), 20),
    )
    bone = ellipsoid(m, parts[0])
    for shape in parts[1:]:
        bone = union(bone, ellipsoid(m, shape), 2.0)
    return bone


def _sinuses(p: Points, m: Points, patient: Patient, wavy: F32) -> tuple[F32, F32]:
    """Air in the frontal, sphenoid and maxillary sinuses and in the nose, and their bony walls."""
    frontal, sphenoid, maxillary, _ = patient.air
    curved = Points(m.x, m.y - m.x * m.x / 120, m.z)
    front = ellipsoid(curved, Shape((10, -84.5, -8), (14 * frontal, 4.5, 13 * frontal))) + 0.6 * wavy
    back = ellipsoid(m, Shape((7, -26, -37), (8 * sphenoid, 13 * sphenoid, 10 * sphenoid))) + 0.7 * wavy
    cheek = (
        ellipsoid(m, Shape((29, -64, -66), (15 * maxillary, 18 * maxillary, 17 * maxillary), 20)) + 0.5 * wavy
    )
    septum = np.float32(1.2) - np.abs(p.x)
    turbinate = np.abs(np.abs(p.x) - 7) - np.float32(2.2) + 0.4 * wavy
    nose = superellipsoid(p, Shape((0, -66, -60), (13, 30, 24)), 3.0)
    nose = common(nose, common(turbinate.astype(np.float32), -septum, 1.0))
    throat = ellipsoid(p, Shape((0, -24, -82), (14, 9, 26)))
    walls = union(cheek + 1.4, union(back + 1.3, front + 1.8))
    palate = common(superellipsoid(p, Shape((0, -60, -88), (20, 27, 2.2)), 3.0), p.y + 95)
    return union(union(front, back), union(cheek, union(nose, throat))), union(walls, palate)


def _ethmoid(p: Points) -> F32:
    """The ethmoid labyrinth between the orbits."""
    return superellipsoid(p, Shape((0, -58, -36), (13, 20, 12)), 3.0)


def _canals(p: Points, m: Points) -> F32:
    """External ear canal and tympanic cavity."""
    y, z = m.y - 9 - (m.x - 45) * 0.1, m.z + 46
    canal = common(3.6 - np.hypot(y, z), np.minimum(m.x - 40, 90 - m.x))
    return union(canal, ellipsoid(m, Shape((40, 9, -44), (4, 5, 6))))


def _muscles(m: Points) -> F32:
    """Temporal, masseter, pterygoid and neck muscles."""
    parts = (
        Shape((64, -26, -22), (9, 27, 34)),
        Shape((61, -28, -82), (7, 19, 28)),
        Shape((34, -24, -72), (9, 17, 18), -20),
        Shape((13, 74, -96), (11, 15, 38)),
        Shape((36, 64, -96), (13, 15, 38), -30),
        Shape((57, 32, -98), (8, 15, 34)),
        Shape((16, 2, -92), (11, 9, 30)),
    )
    muscle = ellipsoid(m, parts[0])
    for shape in parts[1:]:
        muscle = union(muscle, ellipsoid(m, shape))
    return muscle


def _swelling(p: Points, patient: Patient) -> F32:
    """Thickness of a traumatic swelling of the scalp, mm."""
    x, y, z, thick = patient.swelling
    away = ((p.x - x) ** 2 + (p.y - y) ** 2 + (p.z - z) ** 2) / 26**2
    swelling: F32 = np.float32(thick) * np.exp(-away)
    return swelling


def _nerves(m: Points) -> F32:
    """Optic nerve and the four straight muscles of the eye."""
    nerve = tube(m, ((31, -66, -36, 1.9), (24, -50, -35, 2.0), (15, -38, -33, 2.0)))
    for dx, dz in ((-12, 0), (12, 0), (0, 10), (0, -10)):
        front, belly = (31 + dx, -76, -36 + dz, 1.2), (28 + 0.85 * dx, -58, -35 + 0.85 * dz, 2.2)
        nerve = union(nerve, tube(m, (front, belly, (20, -38, -33, 1.5))))
    return nerve


def _skin(p: Points, m: Points, shell: F32, patient: Patient) -> F32:
    """Depth below the skin: scalp, temples, face, nose, ears and neck."""
    temple = ellipsoid(m, Shape((63, -26, -24), (12, 32, 40)))
    face = superellipsoid(p, Shape((0, -42, -66), (66, 54, 62)), 2.3)
    nose = ellipsoid(p, Shape((0, -98, -58), (12, 18, 20)))
    neck = ellipsoid(p, Shape((0, 25, -112), (62, 62, 64)))
    ear = ellipsoid(m, Shape((75, 16, -40), (3.0, 15, 27), -37)) + 1.2 * wave_noise(patient.folia, p)
    scalp = shell + np.float32(patient.scalp) + _swelling(p, patient)
    skin = union(union(scalp, temple, 12.0), union(face, neck, 14.0), 14.0)
    return union(union(skin, nose, 8.0), ear, 3.0)
