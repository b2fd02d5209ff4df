"""A dilated 1D convolution along the slices of a study, over the probabilities of each class."""

import torch
from torch import Tensor, nn

from peers.networks import LOGIT_SCALE, Inputs, NetworkPeer
from rsna_seq.labels import N_CLASSES


class StudyConv(nn.Module):
    """Five convolutions along the slices, shared by the classes, over probabilities and position.

    Source: SeuTao/RSNA2019_Intracranial-Hemorrhage-Detection (1st place of 2019), convolution branch of
    ``SequenceModel``: two pointwise layers map the features to auxiliary logits, which have their own loss;
    the convolutions read the auxiliary and the CNN's probabilities and the position; kernels of 5, 3, 3, 3, 3
    with dilations 1, 2, 4, 2, 1. Changes: 64 and 32 channels instead of 512 and 256, because the original
    reads fifteen networks and this one reads one; 128 and 64 pointwise units instead of 512 and 128; the
    CNN's logit is an additional input, because its probability saturates; the two GRU branches are left out;
    padding is masked in the norms.

    Args:
        features: Width of the inputs.
        wide: Channels of the first convolution; the others have half as many.
        drop: Dropout before the pointwise layers.
    """

    def __init__(self, features: int, wide: int = 64, drop: float = 0.5) -> None:
        super().__init__()
        self.drop = nn.Dropout(drop)
        self.reduce = nn.Linear(features, 2 * wide)
        self.reduce_norm = _MaskedNorm(2 * wide)
        self.squeeze = nn.Linear(2 * wide, wide)
        self.squeeze_norm = _MaskedNorm(wide)
        self.auxiliary = nn.Linear(wide, N_CLASSES)
        half = wide // 2
        plan = [(4, wide, 5, 1), (wide, half, 3, 2), (half, half, 3, 4), (half, half, 3, 2)]
        self.convs = nn.ModuleList(
            nn.Conv1d(a, b, k, padding=k // 2 * d, dilation=d, bias=False) for a, b, k, d in plan
        )
        self.norms = nn.ModuleList(_MaskedNorm(b) for _, b, _, _ in plan)
        self.final = nn.Conv1d(half, 1, 3, padding=1, bias=False)

    def forward(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Compute the logits (study, slab, 6) and the auxiliary logits of the same shape."""
        mask = inputs.mask
        hidden = torch.relu(self.reduce_norm(self.reduce(self.drop(inputs.x)), mask))
        hidden = torch.relu(self.squeeze_norm(self.squeeze(self.drop(hidden)), mask))
        auxiliary: Tensor = self.auxiliary(self.drop(hidden))
        scaled = inputs.x[..., -N_CLASSES:]
        steps = torch.arange(mask.shape[1], device=mask.device, dtype=scaled.dtype)
        position = steps[None] / (mask.sum(dim=1, keepdim=True) - 1).clamp_min(1)
        per_class = (
            scaled,
            torch.sigmoid(scaled * LOGIT_SCALE),
            torch.sigmoid(auxiliary),
            position[..., None].expand_as(scaled),
        )
        x = torch.stack(per_class, dim=-1).transpose(1, 2).flatten(0, 1)  # one row per study and class
        rows = mask.repeat_interleave(N_CLASSES, dim=0)
        x = x * rows[..., None]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x.transpose(1, 2)).transpose(1, 2)
            x = torch.relu(norm(x, rows)) * rows[..., None]
        answer = self.final(x.transpose(1, 2)).unflatten(0, (len(mask), N_CLASSES))[:, :, 0]
        return answer.transpose(1, 2), auxiliary


class _MaskedNorm(nn.Module):
    """Batch norm over slabs without padding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise (row, slab, channel); padded positions stay unchanged."""
        out = x.clone()
        inside = x[mask]
        out[mask] = self.norm(inside) if len(inside) > 1 or not self.training else inside
        return out


CONV = NetworkPeer("1D convolution", StudyConv)
