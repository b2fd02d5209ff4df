"""A light decoder on the feature maps of a frozen embedder, trained on the masks of phantoms.

(n, slice, y, x) HU -> feature maps of four stages of the backbone -> upsampled and merged, coarsest first
-> joined with the windows of the centre slice -> (n, 5, y, x) logits of the five types.
"""

import sys
from collections.abc import Iterator

import numpy as np
import torch
from map_phantoms import Case
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rsna_seq.imaging.neighbours import neighbour_indices
from rsna_seq.nets.cnn import Embedder
from rsna_seq.phantom import KINDS

_BLOCKS = (4, 2, 1, 0)
"""Stages of the backbone, coarsest first."""
_WIDTH = 24
_NEGATIVES = 0.25
"""Slices without haemorrhage, as a share of those with one."""


class Decoder(nn.Module):
    """Outlines of the five types from a frozen embedder.

    Args:
        net: The embedder; it is not trained, and is no part of the weights.
    """

    def __init__(self, net: Embedder) -> None:
        super().__init__()
        self.net = [net]  # a list, so that the embedder is not among the parameters
        blocks = net.backbone.blocks
        channels = [_channels(blocks[i]) for i in _BLOCKS]  # type: ignore[index]
        self.narrow = nn.ModuleList(nn.Conv2d(c, _WIDTH, 1) for c in channels)
        self.merge = nn.ModuleList(_mix(_WIDTH, _WIDTH) for _ in channels)
        self.last = _mix(_WIDTH + len(net.windows), 16)
        self.out = nn.Conv2d(16, len(KINDS), 1)

    def forward(self, hu: Tensor) -> Tensor:
        """(n, slice, y, x) HU -> (n, 5, y, x) logits."""
        stack, maps = self.features(hu)
        x = torch.zeros(())
        for found, narrow, merge in zip(maps, self.narrow, self.merge, strict=True):
            here = narrow(found)
            if x.ndim:
                here = here + F.interpolate(x, here.shape[-2:], mode="bilinear")
            x = merge(here)
        windows = len(self.net[0].windows)
        centre = stack.shape[1] // windows // 2 * windows
        x = F.interpolate(x, stack.shape[-2:], mode="bilinear")
        logits: Tensor = self.out(self.last(torch.cat([x, stack[:, centre : centre + windows]], 1)))
        return logits

    @torch.no_grad()
    def features(self, hu: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Windowed input, and the feature maps of the stages."""
        net = self.net[0]
        stack = net.windowed(hu)
        x = net.backbone.bn1(net.backbone.conv_stem(stack))  # type: ignore[operator]
        kept = {}
        for number in range(max(_BLOCKS) + 1):
            x = net.backbone.blocks[number](x)  # type: ignore[index]
            kept[number] = x
        return stack, [kept[number] for number in _BLOCKS]


def _mix(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.SiLU())


def _channels(block: nn.Module) -> int:
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    return convs[-1].out_channels


def loss_of(logits: Tensor, share: Tensor) -> Tensor:
    """Binary cross-entropy, and one minus the Dice coefficient of each type in each slice that shows it."""
    cross = F.binary_cross_entropy_with_logits(logits, share, reduction="none").mean() * 20
    p = logits.sigmoid()
    overlap = 2 * (p * share).sum((2, 3)) / ((p * p).sum((2, 3)) + (share * share).sum((2, 3)) + 1)
    there = share.amax((2, 3)) > 0.35
    return cross + ((1 - overlap) * there).sum() / there.sum().clamp(min=1)


def train(
    net: Embedder, some: list[Case], *, epochs: int, batch: int = 16, lr: float = 3e-3, seed: int = 0
) -> Decoder:
    """Train a decoder on the slabs of phantoms that show a haemorrhage, and on a share of the others."""
    torch.manual_seed(seed)
    decoder = Decoder(net.eval())
    rng = np.random.default_rng(seed)
    rows = _rows(some, rng)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=lr, weight_decay=0.01)
    steps = epochs * (len(rows) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(steps, 2), pct_start=0.1)
    for epoch in range(epochs):
        rng.shuffle(rows)  # type: ignore[arg-type]
        losses = []
        for hu, share in _batches(some, rows, batch, net, rng):
            loss = loss_of(decoder(hu), share)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        print(f"decoder: epoch {epoch}: loss {np.mean(losses):.4f}", file=sys.stderr, flush=True)
    return decoder.eval()


def _rows(some: list[Case], rng: np.random.Generator) -> list[tuple[int, int]]:
    """(case, slab) of all slabs that show a haemorrhage and a share of the others."""
    shown, others = [], []
    for c, case in enumerate(some):
        there = (case.blood >= 90).any(axis=(1, 2, 3))
        shown += [(c, int(s)) for s in np.flatnonzero(there)]
        others += [(c, int(s)) for s in np.flatnonzero(~there)]
    rng.shuffle(others)
    return shown + others[: round(_NEGATIVES * len(shown))]


def _batches(
    some: list[Case], rows: list[tuple[int, int]], batch: int, net: Embedder, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of HU and shares of blood; flipped left to right at random, with noise and an offset in HU."""
    for at in range(0, len(rows) - batch + 1, batch):
        pixels, shares = [], []
        for c, slab in rows[at : at + batch]:
            case = some[c]
            near = neighbour_indices(case.z_mm, net.cfg.neighbours, net.cfg.spacing_mm)[slab]
            way = -1 if rng.random() < 0.5 else 1
            pixels.append(case.hu[near][..., ::way] + rng.normal(0, 3))
            shares.append(case.blood[slab][..., ::way])
        hu = np.stack(pixels).astype(np.float32)
        hu += rng.normal(0, 1, hu.shape).astype(np.float32) * rng.uniform(0, 6)
        yield torch.from_numpy(hu), torch.from_numpy(np.stack(shares).astype(np.float32) / 255)


@torch.inference_mode()
def outline(decoders: list[Decoder], hu: NDArray[np.int16]) -> NDArray[np.float32]:
    """Mean probability of the decoders.

    Args:
        decoders: One per network.
        hu: (n, slice, y, x) HU.

    Returns:
        (n, 5, y, x).
    """
    pixels = torch.from_numpy(hu.astype(np.float32))
    found: NDArray[np.float32] = torch.stack([d(pixels).sigmoid() for d in decoders]).mean(0).numpy()
    return found
