"""Augmentation on the device, with one set of random parameters per sample.

1. :func:`draw` samples the parameters (:class:`Draws`) from a seeded generator.
2. :func:`augment` applies them to (n, slice, y, x) HU: depth flip, one affine resampling (flip, rotation,
   scale, shift), HU scale, shift and noise, and the erased rectangle, in this order.
"""

import math
from dataclasses import dataclass

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
        noise: (n,) standard deviation of the added noise, in HU.
        box: (n, 4) erased rectangle: top, left, bottom, right, as fractions of the image size; an empty
            rectangle erases nothing.
        seed: Seed of the noise.
    """

    theta: Tensor
    depth: Tensor
    gain: Tensor
    offset: Tensor
    noise: Tensor
    box: Tensor
    seed: int

    def part(self, rows: slice) -> "Draws":
        """Return the parameters of a range of samples."""
        tensors = {k: v[rows] for k, v in self.__dict__.items() if isinstance(v, Tensor)}
        return Draws(**tensors, seed=self.seed + (rows.start or 0))

    def to(self, device: torch.device) -> "Draws":
        """Return the parameters on another device."""
        tensors = {
            k: v.to(device, non_blocking=True) for k, v in self.__dict__.items() if isinstance(v, Tensor)
        }
        return Draws(**tensors, seed=self.seed)


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
        noise=uniform(n) * cfg.hu_noise,
        box=torch.cat([corner - extent / 2, corner + extent / 2], dim=1),
        seed=int(torch.randint(2**31, (1,), generator=generator)),
    )


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
    if bool((draws.noise > 0).any()):
        generator = torch.Generator(hu.device).manual_seed(draws.seed)
        grain = torch.randn(hu.shape, generator=generator, device=hu.device)
        hu = hu + grain * draws.noise[:, None, None, None]
    return torch.where(
        _inside(draws.box, hu.shape[-2], hu.shape[-1])[:, None], torch.full_like(hu, AIR_HU), hu
    )


def _inside(box: Tensor, rows: int, columns: int) -> Tensor:
    """Return the mask (n, y, x) of the pixels inside each sample's rectangle."""
    y = (torch.arange(rows, device=box.device) + 0.5)[None] / rows
    x = (torch.arange(columns, device=box.device) + 0.5)[None] / columns
    in_y = (y >= box[:, 0:1]) & (y < box[:, 2:3])
    in_x = (x >= box[:, 1:2]) & (x < box[:, 3:4])
    return in_y[:, :, None] & in_x[:, None, :]
