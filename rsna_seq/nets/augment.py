"""Augmentation on the device, with one set of random parameters per sample.

1. :func:`draw` samples the parameters (:class:`Draws`) from a seeded generator.
2. :func:`augment` applies them to (n, slice, y, x) HU: depth flip, one affine resampling (flip, rotation,
   scale, shift); the scanner: HU scale and shift, noise, kernel; and the erased rectangle, in this order. The
   noise passes through the kernel, as that of a scanner: a soft kernel makes it weaker and coarser, a sharp
   one stronger and finer.

Whether a step is left out depends on the config, not on the drawn values, which may be on a GPU: reading them
would wait for it.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from rsna_seq.config import EmbedConfig
from rsna_seq.imaging.volume import AIR_HU


@dataclass(frozen=True)
class Draws:
    """Augmentation parameters of one batch; the first axis of each tensor is the sample.

    Attributes:
        theta: (n, 2, 3) affine maps from output to input coordinates, in units of half the image size.
        depth: (n,) bool; True reverses the order of the slices.
        gain: (n,) factor applied to HU.
        offset: (n,) shift in HU.
        noise: (n,) standard deviation of the added noise before the kernel, in HU; None adds none.
        kernel: (n,) strength of the sharpening; negative values blur. None leaves the kernel as it is.
        box: (n, 4) erased rectangle: top, left, bottom, right, as fractions of the image size; an empty
            rectangle erases nothing.
        seed: Seed of the noise.
    """

    theta: Tensor
    depth: Tensor
    gain: Tensor
    offset: Tensor
    noise: Tensor | None
    kernel: Tensor | None
    box: Tensor
    seed: int

    def part(self, rows: slice) -> "Draws":
        """Return the parameters of a range of samples."""
        tensors = {k: v[rows] for k, v in self.__dict__.items() if isinstance(v, Tensor)}
        return replace(self, **tensors, seed=self.seed + (rows.start or 0))

    def to(self, device: torch.device) -> "Draws":
        """Return the parameters on another device, without waiting for a GPU."""
        later = device.type == "cuda"
        tensors = {
            k: v.to(device, non_blocking=later) for k, v in self.__dict__.items() if isinstance(v, Tensor)
        }
        return replace(self, **tensors, seed=self.seed)


def draw(cfg: EmbedConfig, n: int, generator: torch.Generator) -> Draws:
    """Sample the parameters of ``n`` samples from a CPU generator."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    angle = (2 * uniform(n) - 1) * math.radians(cfg.rotate_deg)
    zoom = 1 / (1 + (2 * uniform(n) - 1) * cfg.scale)
    mirror = 1 - 2 * (uniform(n) < cfg.flip_prob).float()
    shift = (2 * uniform(n, 2) - 1) * 2 * cfg.shift
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    rows = torch.stack([mirror * cos, -sin, shift[:, 0], mirror * sin, cos, shift[:, 1]], dim=1)
    corner, extent = uniform(n, 2), 0.1 + 0.2 * uniform(n, 2)
    extent = extent * (uniform(n, 1) < cfg.erase)
    return Draws(
        theta=rows.view(n, 2, 3),
        depth=uniform(n) < cfg.depth_flip,
        gain=1 + (2 * uniform(n) - 1) * cfg.hu_scale,
        offset=(2 * uniform(n) - 1) * cfg.hu_shift,
        noise=uniform(n) ** 2 * cfg.hu_noise if cfg.hu_noise else None,
        kernel=_kernel(uniform(n), cfg.hu_kernel) if cfg.hu_kernel else None,
        box=torch.cat([corner - extent / 2, corner + extent / 2], dim=1),
        seed=int(torch.randint(2**31, (1,), generator=generator)),
    )


def _kernel(share: Tensor, largest: float) -> Tensor:
    """Strength of the sharpening from uniform numbers: half of them blur, the others sharpen."""
    sharp = 2 * share - 1
    return torch.where(sharp > 0, sharp * largest, sharp * min(largest, 1.0))


def augment(hu: Tensor, draws: Draws) -> Tensor:
    """Apply sampled parameters to a batch.

    Args:
        hu: (n, slice, y, x) HU, float32, on the same device as ``draws``.
        draws: Parameters of n samples.

    Returns:
        A new tensor of the same shape, in HU.
    """
    hu = torch.where(draws.depth[:, None, None, None], hu.flip(1), hu)
    grid = F.affine_grid(draws.theta, list(hu.shape), align_corners=False)
    # subtract air before the resampling, so that zero padding fills the border with air
    hu = F.grid_sample(hu - AIR_HU, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + AIR_HU
    hu = hu * draws.gain[:, None, None, None] + draws.offset[:, None, None, None]
    if draws.noise is not None:
        generator = torch.Generator(hu.device).manual_seed(draws.seed)
        white = torch.randn(hu.shape, generator=generator, device=hu.device)
        hu = hu + white * draws.noise[:, None, None, None]
    if draws.kernel is not None:
        hu = hu + draws.kernel[:, None, None, None] * (hu - _blurred(hu))
    return torch.where(
        _inside(draws.box, hu.shape[-2], hu.shape[-1])[:, None], torch.full_like(hu, AIR_HU), hu
    )


def _blurred(hu: Tensor) -> Tensor:
    """Average over 3 x 3 pixels with binomial weights: a Gaussian of 0.7 pixels; borders are repeated."""
    for axis in (-1, -2):
        last = hu.shape[axis] - 1
        before = torch.cat([hu.narrow(axis, 0, 1), hu.narrow(axis, 0, last)], axis)
        after = torch.cat([hu.narrow(axis, 1, last), hu.narrow(axis, last, 1)], axis)
        hu = 0.5 * hu + 0.25 * (before + after)
    return hu


def _inside(box: Tensor, rows: int, columns: int) -> Tensor:
    """Return the mask (n, y, x) of the pixels inside each sample's rectangle."""
    y = (torch.arange(rows, device=box.device) + 0.5)[None] / rows
    x = (torch.arange(columns, device=box.device) + 0.5)[None] / columns
    in_y = (y >= box[:, 0:1]) & (y < box[:, 2:3])
    in_x = (x >= box[:, 1:2]) & (x < box[:, 3:4])
    return in_y[:, :, None] & in_x[:, None, :]
