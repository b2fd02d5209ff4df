"""Scanners unlike the standard ones: offset and gain of HU, thin noisy slices, sharp kernels, sparse slices.

1. :func:`vary` draws the changes of one study and puts them into its acquisition (``Scan``).
2. :func:`calibrated` applies offset and gain to an image; the renderer reads the other fields itself.

The noise of a reconstruction is inversely proportional to the square root of the slice thickness (Brooks RA,
Di Chiro G, Med Phys 1976;3:237-240): 0.6 mm slices have 2.9 times the noise of 5 mm slices.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rsna_seq.phantom.fields import F32
from rsna_seq.phantom.scanner import MAX_SLICES, MIN_SLICES, Scan

Scanners = Literal["standard", "unseen", "varied"]
CHANGES = ("offset", "gain", "thin", "sharp", "sparse")
THIN_MM = 0.6
"""Slice thickness of a thin series, and the grid that its sampled slices lie on."""
WIDEST_GAP_MM = 16.0
"""Largest gap between sampled slices; shared CQ500 studies have gaps of 0.6 to 16 mm."""
LEAST_NOISE_HU, MOST_NOISE_HU = 2.0, 25.0
_AIR_HU, _FAT_HU = -1000.0, -200.0
_STANDARD_SHARE = 0.25
"""Share of standard scanners among ``varied``."""


@dataclass(frozen=True)
class _Kernel:
    """Reconstruction kernel: fields of Scan, and how much noise it adds."""

    kernel: float
    sharpen: float
    grain: float
    noise_factor: float


def vary(rng: np.random.Generator, scan: Scan, scanners: Scanners) -> Scan:
    """Change the scanner of a standard acquisition.

    ``standard`` changes nothing and draws nothing. ``unseen`` makes one to five of these changes, each far
    from the standard scanners: an offset of 6 to 12 HU, a gain of 4 to 8 % (both of either sign), 0.6 mm
    slices with their noise, a sharp kernel, and 0.6 mm slices sampled with gaps of 0.6 to 16 mm. ``varied``
    covers the whole range for training: a quarter standard scanners; the rest with an offset within 12 HU, a
    gain within 8 %, slices of 0.6 to 6 mm, even or sampled, soft to sharp kernels, noise of 2 to 25 HU.

    Args:
        rng: Random generator of the study.
        scan: The acquisition drawn by :func:`rsna_seq.phantom.scanner.draw_scan`.
        scanners: Which scanners.

    Returns:
        The acquisition; ``changes`` names what differs from a standard scanner. At most MAX_SLICES slices.
    """
    if scanners == "standard":
        return scan
    return _unseen(rng, scan) if scanners == "unseen" else _varied(rng, scan)


def calibrated(image: F32, scan: Scan) -> F32:
    """Apply gain and offset of a scanner to an image in HU, (row, column).

    From -200 HU up, HU become ``gain * HU + offset``. Below, the change fades out linearly: air stays at
    -1000 HU, since scanners are calibrated on it.
    """
    if scan.gain == 1 and scan.offset_hu == 0:
        return image
    change = np.maximum(image, _FAT_HU) * np.float32(scan.gain - 1) + np.float32(scan.offset_hu)
    fade = np.clip((image - np.float32(_AIR_HU)) / np.float32(_FAT_HU - _AIR_HU), 0, 1)
    result: F32 = (image + change * fade).astype(np.float32)
    return result


def _unseen(rng: np.random.Generator, scan: Scan) -> Scan:
    """One to five changes, each outside the range of the standard scanners."""
    count = int(rng.integers(1, len(CHANGES) + 1))
    chosen = {CHANGES[int(i)] for i in rng.choice(len(CHANGES), count, replace=False)}
    if "sparse" in chosen:
        chosen.add("thin")
    changes = tuple(name for name in CHANGES if name in chosen)
    scan = replace(scan, changes=changes)
    if "offset" in chosen:
        scan = replace(scan, offset_hu=_signed(rng, 6, 12))
    if "gain" in chosen:
        scan = replace(scan, gain=1 + _signed(rng, 0.04, 0.08))
    if "sparse" in chosen:
        scan = _sampled(rng, scan, THIN_MM, int(rng.integers(24, 57)))
    if "thin" in chosen:
        scan = _with_thickness(scan, THIN_MM)
    if "sharp" in chosen:
        scan = _with_kernel(scan, _sharp(rng))
    return scan


def _varied(rng: np.random.Generator, scan: Scan) -> Scan:
    """Any scanner of a wide range; a quarter is standard."""
    if rng.random() < _STANDARD_SHARE:
        return scan
    thickness = THIN_MM if rng.random() < 0.3 else float(np.exp(rng.uniform(np.log(THIN_MM), np.log(6.0))))
    slices = int(rng.integers(24, 57))
    sparse = rng.random() < 0.4
    place = _sampled if sparse else _even
    scan = place(rng, scan, thickness, slices)
    scan = replace(
        scan,
        offset_hu=float(rng.uniform(-12, 12)),
        gain=float(rng.uniform(0.92, 1.08)),
        noise=float(np.exp(rng.uniform(np.log(2.2), np.log(8.5)))),
        thickness=(5.0,) * len(scan.offsets),
    )
    scan = _with_thickness(scan, thickness)
    sharp = rng.random() < 0.3
    scan = _with_kernel(scan, _sharp(rng) if sharp else _soft(rng))
    present = {"offset": True, "gain": True, "thin": thickness < 1.5, "sharp": sharp, "sparse": sparse}
    return replace(scan, changes=tuple(name for name in CHANGES if present[name]))


def _signed(rng: np.random.Generator, low: float, high: float) -> float:
    """A number of this magnitude, of either sign."""
    return float(rng.uniform(low, high)) * (1 if rng.random() < 0.5 else -1)


def _sharp(rng: np.random.Generator) -> _Kernel:
    """A bone or high-resolution kernel."""
    return _Kernel(
        rng.uniform(0.2, 0.32), rng.uniform(0.8, 2.0), rng.uniform(0.3, 0.45), rng.uniform(1.3, 2.0)
    )


def _soft(rng: np.random.Generator) -> _Kernel:
    """A kernel from very smooth to slightly sharp; smooth kernels have less and coarser noise."""
    kernel = rng.uniform(0.3, 1.1)
    return _Kernel(kernel, rng.uniform(0.0, 0.3), min(1.2, 0.3 + kernel * 0.9), 1.2 - 0.4 * kernel)


def _with_kernel(scan: Scan, kernel: _Kernel) -> Scan:
    noise = float(np.clip(scan.noise * kernel.noise_factor, LEAST_NOISE_HU, MOST_NOISE_HU))
    return replace(scan, kernel=kernel.kernel, sharpen=kernel.sharpen, grain=kernel.grain, noise=noise)


def _with_thickness(scan: Scan, thickness: float) -> Scan:
    """Slices of this thickness at the same positions, with the noise that belongs to it."""
    factor = float(np.sqrt(np.mean(scan.thickness) / thickness))
    noise = float(np.clip(scan.noise * factor, LEAST_NOISE_HU, MOST_NOISE_HU))
    return replace(scan, thickness=(thickness,) * len(scan.offsets), noise=noise)


def _even(_: np.random.Generator, scan: Scan, thickness: float, slices: int) -> Scan:
    """Equidistant slices over the same range: contiguous if there are enough, otherwise with gaps."""
    low, high = min(scan.offsets), max(scan.offsets)
    step = max(thickness, (high - low) / slices)
    count = int(np.clip((high - low) / step, MIN_SLICES, MAX_SLICES))
    return _at(scan, high - step * np.arange(count)[::-1], "even")


def _sampled(rng: np.random.Generator, scan: Scan, thickness: float, slices: int) -> Scan:
    """Some slices of a contiguous series over the same range, chosen at random, with gaps of up to 16 mm."""
    low, high = min(scan.offsets), max(scan.offsets)
    z = np.arange(low, high, thickness)
    chosen = np.sort(rng.choice(len(z), min(slices, len(z)), replace=False))
    while len(chosen) < MAX_SLICES:
        widest = int(np.argmax(np.diff(chosen)))
        if (chosen[widest + 1] - chosen[widest]) * thickness <= WIDEST_GAP_MM:
            break
        chosen = np.insert(chosen, widest + 1, (chosen[widest] + chosen[widest + 1]) // 2)
    return _at(scan, z[chosen], "sparse")


def _at(scan: Scan, z: NDArray[np.floating], pattern: str) -> Scan:
    """The acquisition with slices at these offsets; thickness is the mean of the old ones."""
    offsets = tuple(float(v) for v in z.round(4))
    return replace(
        scan, offsets=offsets, thickness=(float(np.mean(scan.thickness)),) * len(offsets), pattern=pattern
    )
