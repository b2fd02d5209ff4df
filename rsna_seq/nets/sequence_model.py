"""The sequence model: a masked bidirectional GRU over the whole study, around the CNN's own opinion.

(study, slab, ·) vectors, logits, z:

1. where vectors are read, a correction of the CNN's logits slice by slice: vectors of studies that the CNN
   never saw tell where it is sure of itself without reason; zero at the start, with a loss of its own;
2. the residual path: what is now said of the slab, of its surroundings at four distances in millimetres,
   and of the whole study, mixed class by class; it starts as the probabilities smoothed along z, so the
   network begins as the best of the cheap baselines and not below it, and can mend an overconfident CNN;
3. the GRU: projected vectors, their differences to both neighbours, logits, distances and position -> hidden
   states -> a correction of six logits, zero at the start.

Padding is masked everywhere: a study's result does not depend on its batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rsna_seq.config import SequenceConfig
from rsna_seq.labels import N_CLASSES

_UNIT_MM = 5.0
"""Distances enter as multiples of the nominal spacing."""
_WIDTHS = (3.0, 6.0, 12.0, 25.0)
"""Standard deviations in mm under which the residual path sees a slab's surroundings."""
_BEGIN = 1
"""The residual path starts as the second of them alone."""
_VIEWS = len(_WIDTHS) + 3
"""The slab itself, its surroundings, the study's maximum and mean."""
_PACE = 20.0
"""The few weights of the residual path learn so much faster than those of the GRU."""
_THIN = 0.5
"""Dropout of vectors and of what they are projected to: they have more features than a set has studies."""
_EPS, _STUDY_EPS = 1e-6, 1e-4
_GEOMETRY = 3
"""Distance to the slab below, to the slab above, normalised position."""


class Studies(NamedTuple):
    """A padded batch of studies, all on one device."""

    vectors: Tensor
    """(study, slab, feature)."""
    logits: Tensor
    """(study, slab, 6), the CNN's."""
    z_mm: Tensor
    """(study, slab)."""
    lengths: Tensor
    """(study,) slabs, on the CPU."""

    @property
    def mask(self) -> Tensor:
        """(study, slab): True where there is a slab."""
        steps = torch.arange(self.logits.shape[1], device=self.logits.device)
        return steps[None] < self.lengths.to(self.logits.device)[:, None]


class SequenceModel(nn.Module):
    """Refines the six logits of every slab with the whole study in view.

    Args:
        cfg: Widths, layers, dropout.
        features: Width of the vectors.
    """

    def __init__(self, cfg: SequenceConfig, features: int) -> None:
        super().__init__()
        self.cfg, self.features = cfg, features
        self.drop = nn.Dropout(cfg.dropout)
        inputs = 3 * N_CLASSES + _GEOMETRY
        if cfg.vectors:
            self.thin = nn.Dropout(_THIN)
            self.norm = nn.LayerNorm(features, elementwise_affine=False)
            self.project = nn.Linear(features, cfg.projection_dim)
            self.mend = nn.Linear(cfg.projection_dim, N_CLASSES)
            nn.init.zeros_(self.mend.weight)
            nn.init.zeros_(self.mend.bias)
            inputs += 3 * cfg.projection_dim
        self.gru = nn.GRU(
            inputs,
            cfg.hidden,
            cfg.layers,
            batch_first=True,
            bidirectional=True,
            dropout=cfg.dropout if cfg.layers > 1 else 0.0,
        )
        self.correct = nn.Linear(2 * cfg.hidden, N_CLASSES)
        nn.init.zeros_(self.correct.weight)
        nn.init.zeros_(self.correct.bias)
        self.mix = nn.Parameter(torch.zeros(_VIEWS, N_CLASSES))
        self.bias = nn.Parameter(torch.zeros(N_CLASSES))

    def forward(self, studies: Studies) -> tuple[Tensor, Tensor]:
        """Score a batch; what stands at padded places means nothing.

        Returns:
            The logits (study, slab, 6), and those of step 1, for a loss of their own: without vectors, the
            CNN's.
        """
        mask, lengths = studies.mask, studies.lengths
        extra: list[Tensor] = []
        if self.cfg.vectors:
            hidden = self.thin(torch.relu(self.project(self.thin(self.norm(studies.vectors)))))
            studies = studies._replace(logits=studies.logits + self.mend(hidden))
            extra = [hidden, *_differences(hidden, lengths)]
        inputs = [studies.logits, *_differences(studies.logits, lengths), _geometry(studies.z_mm, lengths)]
        packed = pack_padded_sequence(
            torch.cat(inputs + extra, dim=-1), lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=mask.shape[1])
        correction: Tensor = self.correct(self.drop(states))
        return self._mixed(studies, mask) + correction, studies.logits

    def _mixed(self, studies: Studies, mask: Tensor) -> Tensor:
        """The residual path: views of the CNN's logits, mixed class by class; (study, slab, 6)."""
        start = torch.zeros_like(self.mix)
        start[_BEGIN] = 1.0
        views = _views(studies, mask)
        mixed: Tensor = (views * (start + _PACE * self.mix)).sum(-2) + _PACE * self.bias
        return mixed


def _views(studies: Studies, mask: Tensor) -> Tensor:
    """What the CNN says around every slab, as logits; (study, slab, view, 6)."""
    p = torch.sigmoid(studies.logits) * mask[..., None]
    distance = studies.z_mm[:, :, None] - studies.z_mm[:, None, :]
    views = []
    for width in _WIDTHS:
        weight = torch.exp(-0.5 * (distance / width) ** 2) * mask[:, None, :]
        views.append(torch.logit(weight @ p / weight.sum(-1, keepdim=True).clamp_min(1e-12), eps=_EPS))
    highest = p.amax(1, keepdim=True)
    mean = p.sum(1, keepdim=True) / mask.sum(1)[:, None, None]
    whole = [torch.logit(each.expand_as(p), eps=_STUDY_EPS) for each in (highest, mean)]
    return torch.stack([*views, studies.logits, *whole], dim=-2)


def _differences(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """What changes from the slab below, and to the slab above; zero at a study's ends."""
    step = x[:, 1:] - x[:, :-1]
    inside = torch.arange(1, x.shape[1], device=x.device)[None] < lengths.to(x.device)[:, None]
    step = step * inside[..., None]
    edge = torch.zeros_like(x[:, :1])
    return torch.cat([edge, step], dim=1), torch.cat([step, edge], dim=1)


def _geometry(z_mm: Tensor, lengths: Tensor) -> Tensor:
    """(study, slab, 3): distances to both neighbours in nominal spacings, and position from 0 to 1."""
    below, above = _differences(z_mm[..., None], lengths)
    span = z_mm.gather(1, (lengths.to(z_mm.device) - 1)[:, None]) - z_mm[:, :1]
    position = (z_mm - z_mm[:, :1]) / span.clamp_min(1.0)
    return torch.cat(
        [torch.tanh(below / (4 * _UNIT_MM)) * 4, torch.tanh(above / (4 * _UNIT_MM)) * 4, position[..., None]],
        -1,
    )
