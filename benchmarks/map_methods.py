"""Methods that show where a network found a class.

Each takes an embedder, the slices of one input in HU (slice, y, x) and a class, and returns a map (y, x) that
is not negative.

- ``cam``: gradient times feature maps of a stage: Grad-CAM (Selvaraju et al., ICCV 2017: the mean gradient of
  each feature map), HiRes-CAM (Draelos & Carin, 2020: gradient and feature map pixel by pixel), LayerCAM
  (Jiang et al., IEEE TIP 2021: positive gradients only).
- ``integrated``: integrated gradients (Sundararajan et al., ICML 2017) from a baseline without blood.
- ``occlusion``: fall of the logit where a patch takes the baseline (Zeiler & Fergus, ECCV 2014).
- ``brightest``: density above brain tissue, without a network.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rsna_seq.imaging.skull import inside_skull
from rsna_seq.nets.cnn import Embedder
from rsna_seq.nets.maps import blurred, integrated_gradients, without_dense
from rsna_seq.phantom import KINDS

Method = Callable[[Embedder, Tensor, int], Tensor]


def mirrored(hu: Tensor) -> Tensor:
    """Baseline: each pixel takes the lower density of itself and the other side."""
    return torch.minimum(hu, hu.flip(-1))


def cam(net: Embedder, hu: Tensor, kind: int, *, block: int, rule: str) -> Tensor:
    """Class activation map of a stage of the backbone."""
    kept: list[Tensor] = []
    hook = net.backbone.blocks[block].register_forward_hook(lambda *a: kept.append(a[2]))  # type: ignore
    try:
        with torch.enable_grad():
            logit = net(hu[None].clone().requires_grad_())[1][0, kind]
            (slope,) = torch.autograd.grad(logit, kept[0])
    finally:
        hook.remove()
    maps = kept[0].detach()[0]
    slope = slope[0]
    if rule == "grad":
        slope = slope.mean(dim=(1, 2), keepdim=True)
    elif rule == "layer":
        slope = slope.clamp(min=0)
    return _resized((slope * maps).sum(0).clamp(min=0), hu.shape[-1])


def integrated(
    net: Embedder,
    hu: Tensor,
    kind: int,
    *,
    baseline: Callable[[Tensor], Tensor],
    steps: int,
    blur: float,
    contrast: bool = False,
) -> Tensor:
    """Integrated gradients in HU, summed over the slices; ``contrast``: less the mean of the others."""
    share = integrated_gradients(net, hu, baseline(hu), kind, steps)
    for other in range(len(KINDS)) if contrast else ():
        if other != kind:
            share -= integrated_gradients(net, hu, baseline(hu), other, steps) / (len(KINDS) - 1)
    return blurred(share.sum(0), blur).clamp(min=0)


@torch.inference_mode()
def occlusion(
    net: Embedder,
    hu: Tensor,
    kind: int,
    *,
    baseline: Callable[[Tensor], Tensor],
    side: int,
    stride: int,
    together: int = 32,
) -> Tensor:
    """Fall of the logit where a patch of all slices takes the baseline; unchanged patches are left out."""
    size = hu.shape[-1]
    change = hu - baseline(hu)
    corners = [(y, x) for y in range(0, size - side + 1, stride) for x in range(0, size - side + 1, stride)]
    moved = [float(change[:, y : y + side, x : x + side].abs().sum()) for y, x in corners]
    used = [c for c, m in zip(corners, moved, strict=True) if m > side * side]
    total, count = torch.zeros(size, size), torch.full((size, size), 1e-6)
    for y, x in corners:
        count[y : y + side, x : x + side] += 1
    whole = net(hu[None])[1][0, kind]
    for at in range(0, len(used), together):
        some = used[at : at + together]
        batch = hu.repeat(len(some), 1, 1, 1)
        for i, (y, x) in enumerate(some):
            batch[i, :, y : y + side, x : x + side] -= change[:, y : y + side, x : x + side]
        for (y, x), logit in zip(some, net(batch)[1][:, kind], strict=True):
            total[y : y + side, x : x + side] += (whole - logit).clamp(min=0)
    return total / count


def brightest(net: Embedder, hu: Tensor, kind: int, *, blur: float) -> Tensor:
    """Density above brain tissue in the centre slice, without a network."""
    centre = hu[len(hu) // 2]
    return blurred(centre - without_dense(centre), blur)


def product(net: Embedder, hu: Tensor, kind: int, *, parts: tuple[Method, ...]) -> Tensor:
    """Geometric mean of maps, each divided by its maximum."""
    maps = [part(net, hu, kind) for part in parts]
    scaled = torch.stack([m / m.max().clamp(min=1e-9) for m in maps])
    return scaled.prod(0).pow(1 / len(maps))


def _resized(image: Tensor, size: int) -> Tensor:
    return F.interpolate(image[None, None], (size, size), mode="bilinear")[0, 0]


def located(nets: list[Embedder], hu: NDArray[np.int16], kind: int, method: Method) -> NDArray[np.float32]:
    """Mean over networks of a map, inside the skull, with a maximum of 1; zero if there is nothing.

    Args:
        nets: The networks.
        hu: (slice, y, x) HU of the centre slice and its neighbours.
        kind: Index of the class.
        method: The method.
    """
    pixels = torch.from_numpy(hu.astype(np.float32))
    inside = inside_skull(hu[len(hu) // 2])
    total = np.zeros(hu.shape[1:], np.float32)
    for net in nets:
        part = method(net, pixels, kind).numpy() * inside
        total += part / max(float(part.max()), 1e-9)
    return total / max(float(total.max()), 1e-9)


_CLIP = partial(integrated, baseline=without_dense, steps=8)
METHODS: dict[str, Method] = {
    "grad_cam_4": partial(cam, block=6, rule="grad"),
    "grad_cam_8": partial(cam, block=4, rule="grad"),
    "hires_cam_8": partial(cam, block=4, rule="hires"),
    "layer_cam_8": partial(cam, block=4, rule="layer"),
    "grad_cam_16": partial(cam, block=2, rule="grad"),
    "hires_cam_16": partial(cam, block=2, rule="hires"),
    "layer_cam_16": partial(cam, block=2, rule="layer"),
    "hires_cam_32": partial(cam, block=1, rule="hires"),
    "layer_cam_32": partial(cam, block=1, rule="layer"),
    "integrated_dense": partial(_CLIP, blur=1.5),
    "integrated_dense_3": partial(_CLIP, blur=3.0),
    "integrated_contrast": partial(_CLIP, blur=1.5, contrast=True),
    "integrated_mirror": partial(integrated, baseline=mirrored, steps=8, blur=2.0),
    "occlusion_dense_16": partial(occlusion, baseline=without_dense, side=16, stride=8),
    "layer_8_x_dense": partial(
        product, parts=(partial(cam, block=4, rule="layer"), partial(_CLIP, blur=2.0))
    ),
    "layer_16_x_dense": partial(
        product, parts=(partial(cam, block=2, rule="layer"), partial(_CLIP, blur=2.0))
    ),
    "brightest": partial(brightest, blur=2.0),
}
"""The contenders by name; the number is the side of the map or of the patch, in pixels."""
