"""Where in a slice the networks found a class: integrated gradients from the slice without dense tissue.

1. Baseline: tissue denser than brain becomes brain tissue, and bone stays. What differs is what may be blood.
2. Gradient of the logit of the class, along the way from the baseline to the slice, times the difference
   (Sundararajan et al., Axiomatic attribution for deep networks, ICML 2017), summed over the neighbouring
   slices, which are part of the input.
3. Blurred, cut to the inside of the skull, divided by its maximum, and averaged over the networks.

``benchmarks/bench_maps.py`` compared it with other methods on phantoms; ``docs/localization.md`` has the
figures. The map shows what raised the logit of the CNN; the sequence model and the boosters are not in it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rsna_seq.imaging.skull import inside_skull
from rsna_seq.labels import CLASSES
from rsna_seq.nets.cnn import Embedder
from rsna_seq.nets.loop import device_of

BRAIN_HU = 31.0
"""Mode of brain tissue after the shift of the cache, in HU (the default of ``cache.brain_hu``)."""
SHOWN: tuple[str, ...] = CLASSES[:5]
"""Classes whose maps are accurate enough on phantoms (``docs/localization.md``)."""
LOWEST = 0.5
"""Probability above which findings were measured, and are shown."""
_DENSER, _BONE_FROM, _BONE_AT = 5.0, 100.0, 140.0
"""HU above the mode that is still brain; HU at which the change fades out, and from which nothing changes."""
_STEPS = 8
_BLUR = 1.5 / 128
"""Standard deviation of the blur, as a share of the side."""


def without_dense(hu: Tensor, brain_hu: float = BRAIN_HU) -> Tensor:
    """Make tissue that is denser than brain as dense as brain; bone stays.

    Args:
        hu: HU, any shape.
        brain_hu: Mode of brain tissue.
    """
    excess = (hu - (brain_hu + _DENSER)).clamp(min=0)
    return hu - excess * ((_BONE_AT - hu) / (_BONE_AT - _BONE_FROM)).clamp(0, 1)


def integrated_gradients(net: Embedder, hu: Tensor, baseline: Tensor, kind: int, steps: int) -> Tensor:
    """Attribute the logit of a class to pixels.

    Args:
        net: The network, in evaluation mode.
        hu: (slice, y, x) HU: a slice in the middle of its neighbours.
        baseline: (slice, y, x) HU to start from.
        kind: Index of the class.
        steps: Points of the integral.

    Returns:
        (slice, y, x) share of each pixel in the difference of the logit between slice and baseline.
    """
    parts = ((torch.arange(steps, device=hu.device) + 0.5) / steps).view(-1, 1, 1, 1)
    with torch.enable_grad():
        points = (baseline + (hu - baseline) * parts).requires_grad_()
        logit = net(points)[1][:, kind].sum()
        (slope,) = torch.autograd.grad(logit, points)
    return slope.mean(0) * (hu - baseline)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Apply a Gaussian blur.

    Args:
        image: (y, x).
        sigma: Standard deviation in pixels; 0 returns the image.
    """
    if not sigma:
        return image
    reach = int(3 * sigma) + 1
    x = torch.arange(-reach, reach + 1, dtype=torch.float32, device=image.device)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None, None]
    padded = F.pad(image[None, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel), kernel.transpose(-1, -2))[0, 0]


def class_map(
    nets: Sequence[Embedder], hu: NDArray[np.int16], kind: int, brain_hu: float = BRAIN_HU
) -> NDArray[np.float32]:
    """Compute the map of a class in a slice, averaged over networks.

    Args:
        nets: Networks of one run.
        hu: (slice, y, x) HU as the networks see it: the slice in the middle of its neighbours.
        kind: Index of the class.
        brain_hu: Mode of brain tissue in these pixels.

    Returns:
        (y, x) from 0 to 1, with a maximum of 1; all 0 if no dense tissue inside the skull raises the logit.
    """
    inside = inside_skull(hu[len(hu) // 2])
    total = np.zeros(inside.shape, np.float32)
    for net in nets:
        pixels = torch.from_numpy(hu.astype(np.float32)).to(device_of(net))
        share = integrated_gradients(net, pixels, without_dense(pixels, brain_hu), kind, _STEPS).sum(0)
        found = blurred(share, _BLUR * len(share)).clamp(min=0).cpu().numpy() * inside
        if found.any():
            total += found / found.max()
    largest = float(total.max())
    return total / np.float32(largest) if largest else total
