"""A small transformer encoder over the slices of a study."""

import math

import torch
from torch import Tensor, nn

from peers.networks import Inputs, NetworkPeer
from rsna_seq.labels import N_CLASSES

_WAVES = 10_000.0


class SliceTransformer(nn.Module):
    """Transformer encoder over projected inputs with sinusoidal positions; six logits per slice.

    Source: Shang et al., An Effective Transformer-based Solution for RSNA Intracranial Hemorrhage Detection
    Competition, 2022 (a transformer over slices instead of the recurrent network); the layer is that of
    Vaswani et al., Attention Is All You Need, 2017, with pre-norm. Our choice of size: 2 layers, width 128,
    4 heads, dropout 0.3.

    Args:
        features: Width of the inputs.
        width: Width of the tokens.
        layers: Encoder layers.
        drop: Dropout.
    """

    def __init__(self, features: int, width: int = 128, layers: int = 2, drop: float = 0.3) -> None:
        super().__init__()
        self.project = nn.Linear(features, width)
        self.drop = nn.Dropout(drop)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, drop, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.classify = nn.Linear(width, N_CLASSES)

    def forward(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Compute the logits (study, slab, 6)."""
        x = self.project(inputs.x)
        x = self.drop(x + _positions(x.shape[1], x.shape[2]).to(x))
        return (self.classify(self.encoder(x, src_key_padding_mask=~inputs.mask)),)


def _positions(count: int, width: int) -> Tensor:
    """Compute sinusoidal position encodings, (slab, width)."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(_WAVES) / width))
    angles = torch.arange(count)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


TRANSFORMER = NetworkPeer("transformer", SliceTransformer)
