"""The acquisition: slice positions, position of the head in the gantry, sharpness and noise.

Frequencies follow the headers of the competition's 2,214 test studies: 91 % tilted, 90 % with 5 mm spacing,
6.9 % irregular, often two overlapping passes, 20 to 60 slices with a median of 34.
"""

from dataclasses import dataclass

import numpy as np

from rsna_seq.phantom.fields import F32, Points
from rsna_seq.phantom.patient import Patient
from rsna_seq.spacing import NOMINAL_SPACING_MM

MIN_SLICES, MAX_SLICES = 20, 60


@dataclass(frozen=True)
class Scan:
    """One acquisition. Lengths in mm, angles in degrees."""

    tilt: float
    """Gantry tilt; positive values lift the front edge of the slices."""
    feed: tuple[float, float, float]
    """Shift between slices per mm along the normal: the direction of the table, or the normal itself."""
    centre: tuple[float, float, float]
    """Centre of the field of view at offset 0 along the normal."""
    head: tuple[float, float, float]
    """Position of the template's origin."""
    pose: F32
    """Rotation of the head, (3, 3): template axes as columns."""
    offsets: tuple[float, ...]
    """Position of each slice along the normal, in the order of acquisition."""
    thickness: tuple[float, ...]
    """Thickness of each slice."""
    field_of_view: float
    kernel: float
    """Standard deviation of the blur in the plane."""
    sharpen: float
    """Strength of the edge enhancement of a bone kernel."""
    noise: float
    """Standard deviation of the noise in the brain, HU."""
    grain: float
    """Grain size of the noise."""
    hardening: float
    """Depth of the dark bands between dense bones, HU."""
    motion: tuple[int, int, float]
    """First and last blurred slice and the displacement of the head, mm; 0 mm for none."""
    table: str
    """``headrest``, ``shell``, ``flat`` or ``none``."""
    padded: bool
    """Whether pixels outside the circular field of view are -2000."""
    pattern: str
    """``even``, ``thin``, ``irregular``, ``passes``, ``twice`` or ``sparse``."""
    offset_hu: float = 0.0
    """HU that the scanner adds to tissue (:func:`rsna_seq.phantom.variation.calibrated`)."""
    gain: float = 1.0
    """Factor of the scanner on HU of tissue."""
    changes: tuple[str, ...] = ()
    """What differs from a standard scanner (:data:`rsna_seq.phantom.variation.CHANGES`)."""

    @property
    def columns(self) -> tuple[float, float, float]:
        """Direction of a column (downwards in the image), LPS; rows run along x."""
        t = np.radians(self.tilt)
        return 0.0, float(np.cos(t)), float(-np.sin(t)) + 0.0

    @property
    def normal(self) -> tuple[float, float, float]:
        """The slice normal, pointing to +z."""
        t = np.radians(self.tilt)
        return 0.0, float(np.sin(t)), float(np.cos(t))

    def corner(self, offset: float, matrix: int) -> tuple[float, float, float]:
        """Centre of the first pixel of the slice at an offset: its ImagePositionPatient."""
        half = self.field_of_view / 2 * (1 - 1 / matrix)
        middle = [c + f * offset for c, f in zip(self.centre, self.feed, strict=True)]
        down = self.columns
        return middle[0] - half, middle[1] - half * down[1], middle[2] - half * down[2]


def draw_scan(rng: np.random.Generator, patient: Patient) -> Scan:
    """Sample an acquisition that covers the patient's head."""
    tilt = 0.0 if rng.random() < 0.09 else float(np.clip(rng.normal(14, 7), -12, 28))
    t = np.radians(tilt)
    pitch = -tilt + rng.normal(0, 6) if rng.random() < 0.85 else rng.normal(0, 5)
    pose = _rotation(pitch, rng.normal(0, 4), rng.normal(0, 5))
    pattern = str(
        rng.choice(["even", "thin", "irregular", "passes", "twice"], p=[0.845, 0.07, 0.045, 0.03, 0.01])
    )
    low = rng.normal(-74, 8) * patient.scale[2]
    high = 84 * patient.scale[2] + patient.skull + patient.scalp + rng.normal(4, 5)
    offsets, thickness = _draw_slices(rng, pattern, low, high)
    head = (rng.normal(0, 4), rng.normal(0, 8), rng.uniform(-20, 160))
    along_table = rng.random() < 0.8
    feed = (0.0, 0.0, float(1 / np.cos(t))) if along_table else (0.0, float(np.sin(t)), float(np.cos(t)))
    field = float(np.clip(rng.normal(243, 10), 222, 265))
    centre = (rng.normal(0, 2), head[1] - 1 + rng.normal(0, 3), head[2])
    bone = rng.random() < 0.03
    loud = float(np.sqrt(NOMINAL_SPACING_MM / np.mean(thickness))) * (2.0 if bone else 1.0)
    first = int(rng.integers(0, len(offsets) - 4))
    return Scan(
        tilt=tilt, feed=feed, centre=centre, head=head, pose=pose, offsets=offsets, thickness=thickness,
        field_of_view=field,
        kernel=rng.uniform(0.32, 0.62), sharpen=rng.uniform(0.8, 1.6) if bone else rng.uniform(0.0, 0.12),
        noise=float(np.clip(rng.lognormal(np.log(3.6), 0.28), 2.2, 8.5)) * loud,
        grain=rng.uniform(0.45, 0.85),
        hardening=rng.uniform(4, 16),
        motion=(first, first + int(rng.integers(1, 5)), rng.uniform(1.5, 6) if rng.random() < 0.08 else 0.0),
        table=str(rng.choice(["headrest", "shell", "flat", "none"], p=[0.4, 0.35, 0.1, 0.15])),
        padded=bool(rng.random() < 0.7),
        pattern=pattern,
    )  # fmt: skip


def _draw_slices(
    rng: np.random.Generator, pattern: str, low: float, high: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Offsets along the normal and thickness of each slice, between two heights of the head, mm."""
    if pattern == "thin":
        step = float(rng.choice([2.5, 3.0, 3.0]))
    else:
        step = NOMINAL_SPACING_MM if rng.random() < 0.94 else float(rng.choice([4.0, 4.5, 6.0]))
    if pattern == "irregular":
        switch = rng.uniform(-35, -5)
        base = np.arange(low, switch, 3.0)
        upper = np.arange(base[-1] + (3.0 + step) / 2, high, step)
        steps = np.concatenate([np.full(len(base), 3.0), np.full(len(upper), step)])
        z = np.concatenate([base, upper])
    elif pattern in {"passes", "twice"}:
        one = np.arange(low, high, step)[: MAX_SLICES // 2]
        again = one[: rng.integers(3, 20)] if pattern == "twice" else one[rng.integers(0, 10) :]
        z = np.concatenate([one, again + (0.0 if pattern == "twice" else step * rng.uniform(0.12, 0.6))])
        steps = np.full(len(z), step)
    else:
        count = int(np.clip(round((high - low) / step), MIN_SLICES, MAX_SLICES))
        z = high - step * np.arange(count)[::-1]
        steps = np.full(count, step)
    z, steps = z[-MAX_SLICES:], steps[-MAX_SLICES:]
    return tuple(float(v) for v in z.round(4)), tuple(float(v) for v in steps)


def _rotation(pitch: float, roll: float, yaw: float) -> F32:
    """Rotation about x (chin), y (ear to shoulder) and z (turn), degrees."""
    a, b, c = np.radians([pitch, roll, yaw])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    result: F32 = (rz @ ry @ rx).astype(np.float32)
    return result


def lattice(scan: Scan, offsets: F32, size: int) -> tuple[Points, F32]:
    """Points of the head at which the coarse fields are computed.

    Args:
        scan: The acquisition.
        offsets: Planes along the normal, (plane,), mm.
        size: Points along each side of the field of view.

    Returns:
        Points in the head's frame, each (plane, row, column), and their distance towards the table, mm.
    """
    side = ((np.arange(size) + 0.5) / size - 0.5) * scan.field_of_view
    u = side[None, None, :] + np.zeros((len(offsets), size, 1))
    v = side[None, :, None]
    s = offsets[:, None, None]
    q = [
        (u if axis == 0 else 0)
        + v * scan.columns[axis]
        + scan.centre[axis]
        + scan.feed[axis] * s
        - scan.head[axis]
        for axis in range(3)
    ]
    seen = np.stack(np.broadcast_arrays(*q)).astype(np.float32)
    return Points(*np.einsum("ab,a...->b...", scan.pose, seen)), seen[1]
