"""Effects of image reconstruction: blur, correlated noise, beam hardening, motion.

The noise of filtered back-projection has a spectrum that increases with frequency up to the cutoff of the
kernel (Riederer SJ et al., Phys Med Biol 1978): grains instead of white noise. It is made once per study on a
periodic tile; each slice mixes two shifted parts of the tile, which are nearly independent between slices.
"""

from typing import cast

import cv2
import numpy as np

from rsna_seq.phantom.fields import F32


def noise_tile(rng: np.random.Generator, size: int, pixel_mm: float, grain_mm: float) -> F32:
    """A periodic square of noise of unit variance.

    Args:
        rng: Source of randomness.
        size: Pixels along a side.
        pixel_mm: Size of a pixel.
        grain_mm: Standard deviation of the kernel's blur; the grain is about three times that.
    """
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]) / pixel_mm
    shape = np.sqrt(f + 0.02) * np.exp(-((np.pi * grain_mm * f) ** 2) * 1.2)
    white = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    tile = np.fft.irfft2(white * shape, s=(size, size))
    result: F32 = (tile / tile.std()).astype(np.float32)
    return result


def noise_slice(rng: np.random.Generator, tile: F32, size: int) -> F32:
    """Noise of one slice, (size, size), of unit variance, from a tile of at least this size."""
    span = tile.shape[0]
    pieces = []
    for _ in range(2):
        dy, dx = (int(v) for v in rng.integers(0, span, 2))
        piece = np.roll(tile, (dy, dx), (0, 1))[:size, :size]
        pieces.append(piece[::-1] if rng.random() < 0.5 else piece.T)
    mix = rng.uniform(0, np.pi / 2)
    noise: F32 = np.float32(np.cos(mix)) * pieces[0] + np.float32(np.sin(mix)) * pieces[1]
    return noise


def dark_bands(dense: F32, depth: float) -> F32:
    """Beam hardening: HU to add, dark where rays pass through dense bone on both sides.

    Args:
        dense: Fraction of dense bone in each pixel, (size, size).
        depth: Depth of the dark band between two petrous bones, HU.

    Returns:
        HU to add, of the same shape; at most 0 in the brain.
    """
    size = dense.shape[0]
    small = cv2.resize(dense, (64, 64), interpolation=cv2.INTER_AREA)
    total = np.zeros((64, 64), np.float32)
    for angle in (-24.0, -12.0, 0.0, 12.0, 24.0, 90.0):
        turn = cv2.getRotationMatrix2D((31.5, 31.5), angle, 1.0)
        turned = cv2.warpAffine(small, turn, (64, 64))
        left = np.cumsum(turned, axis=1)
        right = left[:, -1:] - left
        band = np.maximum(np.sqrt(np.maximum(left, 0) * np.maximum(right, 0)) - 2.4, 0) / 4
        back = cv2.invertAffineTransform(turn)
        total += cv2.warpAffine(band.astype(np.float32), back, (64, 64)) * np.float32(
            0.4 if angle == 90 else 1
        )
    bands = cv2.resize(total / 3, (size, size), interpolation=cv2.INTER_CUBIC)
    result: F32 = -np.float32(depth) * bands
    return result


def moved(image: F32, way_px: float, angle: float) -> F32:
    """Motion artefact of a slice: two superimposed positions, and streaks between them."""
    centre = (image.shape[1] / 2, image.shape[0] / 2)
    turn = cv2.getRotationMatrix2D(centre, angle, 1.0)
    turn[0, 2] += way_px
    other = cv2.warpAffine(image, turn, image.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    half = cv2.GaussianBlur(image - other, (0, 0), 6) * np.float32(0.15)
    result: F32 = np.float32(0.6) * image + np.float32(0.4) * other + half
    return result


def blurred(image: F32, sigma_px: float, sharpen: float) -> F32:
    """The kernel: a Gaussian blur, and edge enhancement for sharp kernels."""
    if sigma_px > 0.25:
        image = cast(F32, cv2.GaussianBlur(image, (0, 0), sigma_px))
    if sharpen:
        image = image + np.float32(sharpen) * (
            image - cv2.GaussianBlur(image, (0, 0), 2.2 * max(sigma_px, 0.6))
        )
    return image
