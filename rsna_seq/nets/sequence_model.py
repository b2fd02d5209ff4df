"""Sequence model: a masked bidirectional GRU over the whole study that refines the CNN's logits.

Input: (study, slab, feature) vectors, (study, slab, 6) logits and (study, slab) z.

1. Slice refinement (only with vectors): the vectors of a slab give a correction of its logits. Out-of-fold
   vectors show where the CNN is overconfident. The correction is initialised to zero and has its own loss.
2. Residual path: a learned mix, per class, of the refined logits of the slab, of their Gaussian averages at
   four widths in mm, and of the study's maximum and mean. It is initialised to the probabilities smoothed
   along z, so an untrained model equals the smoothing baseline.
3. GRU: projected vectors, their differences to both neighbours, logits, distances and position -> hidden
   states -> a correction of the six logits, initialised to zero.

Padding is masked everywhere: the result of a study does not depend on its batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rsna_seq.config import JointConfig, SequenceConfig
from rsna_seq.labels import N_CLASSES
from rsna_seq.nets.recurrence import run_gru
from rsna_seq.nets.studies import Studies
from rsna_seq.spacing import NOMINAL_SPACING_MM

_WIDTHS = (3.0, 6.0, 12.0, 25.0)
"""Standard deviations, in mm, of the Gaussian averages in the residual path."""
_INITIAL_WIDTH = 1
"""Index of the width to which the residual path is initialised."""
VIEWS = len(_WIDTHS) + 3
"""Inputs of the residual path: the Gaussian averages, the slab itself, the study's maximum and mean."""
_RESIDUAL_RATE = 20.0
"""Factor by which the few weights of the residual path learn faster than those of the GRU."""
_VECTOR_DROPOUT = 0.5
"""Dropout of vectors and of their projection: a vector has more features than most data sets have studies."""
_EPS, _STUDY_EPS = 1e-6, 1e-4
_GEOMETRY = 3
"""Number of geometry inputs: distance to the slab below, distance to the slab above, normalised position."""


class Drops(NamedTuple):
    """Factors of the dropout of one batch: 0, or 1 / (1 - rate). Drawn by :func:`draw_drops`."""

    vectors: Tensor
    """(study, slab, feature); feature is 0 without vectors."""
    hidden: Tensor
    """(study, slab, projection_dim); 0 without vectors."""
    between: Tensor
    """(layer - 1, study, slab, 2 * hidden)."""
    states: Tensor
    """(study, slab, 2 * hidden)."""


def draw_drops(
    cfg: SequenceConfig, features: int, studies: int, slabs: int, random: torch.Generator
) -> Drops:
    """Draw the dropout of a batch from a generator of its own, so that it depends on no other network."""

    def factors(rate: float, *shape: int) -> Tensor:
        kept = torch.empty(studies, slabs, *shape).bernoulli_(1 - rate, generator=random)
        return kept.div_(1 - rate)

    wide, narrow = (features, cfg.projection_dim) if cfg.vectors else (0, 0)
    between = [factors(cfg.dropout, 2 * cfg.hidden) for _ in range(cfg.layers - 1)]
    return Drops(
        factors(_VECTOR_DROPOUT, wide),
        factors(_VECTOR_DROPOUT, narrow),
        torch.stack(between) if between else torch.empty(0, studies, slabs, 2 * cfg.hidden),
        factors(cfg.dropout, 2 * cfg.hidden),
    )


class SequenceModel(nn.Module):
    """Refines the six logits of every slab, using all slabs of the study.

    Args:
        cfg: Widths, layers, dropout.
        features: Width of the vectors.
    """

    stacked = False
    """Whether the weights have a leading network axis, under ``torch.vmap``; ``nn.GRU`` cannot run then."""

    def __init__(self, cfg: SequenceConfig, features: int) -> None:
        super().__init__()
        self.cfg, self.features = cfg, features
        self.drop = nn.Dropout(cfg.dropout)
        inputs = 3 * N_CLASSES + _GEOMETRY
        if cfg.vectors:
            self.vector_drop = nn.Dropout(_VECTOR_DROPOUT)
            self.norm = nn.LayerNorm(features, elementwise_affine=False)
            self.project = nn.Linear(features, cfg.projection_dim)
            self.refine = nn.Linear(cfg.projection_dim, N_CLASSES)
            nn.init.zeros_(self.refine.weight)
            nn.init.zeros_(self.refine.bias)
            inputs += 3 * cfg.projection_dim
        self.gru, self.correct = study_gru(cfg, inputs)
        self.mix = nn.Parameter(torch.zeros(VIEWS, N_CLASSES))
        self.bias = nn.Parameter(torch.zeros(N_CLASSES))

    def forward(self, studies: Studies, drops: Drops | None = None) -> tuple[Tensor, Tensor]:
        """Score a batch; values at padded positions are undefined.

        Args:
            studies: The batch.
            drops: The dropout, drawn beforehand, while many networks are trained as one
                (:mod:`rsna_seq.nets.batched`); without it the module's own dropout is applied.

        Returns:
            The final logits (study, slab, 6), and the logits after step 1 (study, slab, 6), which have their
            own loss. Without vectors the latter are the CNN's logits.
        """
        mask, lengths = studies.mask, studies.lengths
        extra: list[Tensor] = []
        if self.cfg.vectors:
            vectors = self._dropped(self.norm(studies.vectors), self.vector_drop, drops and drops.vectors)
            hidden = torch.relu(self.project(vectors))
            hidden = self._dropped(hidden, self.vector_drop, drops and drops.hidden)
            studies = studies._replace(logits=studies.logits + self.refine(hidden))
            extra = [hidden, *_differences(hidden, lengths)]
        inputs = [
            studies.logits,
            *_differences(studies.logits, lengths),
            study_geometry(studies.z_mm, lengths),
        ]
        states = self._recurrent(torch.cat(inputs + extra, dim=-1), lengths, drops)
        correction: Tensor = self.correct(self._dropped(states, self.drop, drops and drops.states))
        return self._mixed(studies, mask) + correction, studies.logits

    def _recurrent(self, x: Tensor, lengths: Tensor, drops: Drops | None) -> Tensor:
        """States of the GRU, (study, slab, 2 * hidden)."""
        if self.stacked:
            return run_gru(self.gru, x, lengths, drops and drops.between)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states: Tensor
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=x.shape[1])
        return states

    @staticmethod
    def _dropped(x: Tensor, drop: nn.Dropout, factors: Tensor | None) -> Tensor:
        dropped: Tensor = drop(x) if factors is None else x * factors
        return dropped

    def _mixed(self, studies: Studies, mask: Tensor) -> Tensor:
        """Residual path: a weighted sum of the views of the logits, per class; (study, slab, 6)."""
        start = torch.zeros_like(self.mix)
        start[_INITIAL_WIDTH] = 1.0
        views = study_views(studies, mask)
        mixed: Tensor = (views * (start + _RESIDUAL_RATE * self.mix)).sum(-2) + _RESIDUAL_RATE * self.bias
        return mixed


def study_gru(cfg: SequenceConfig | JointConfig, inputs: int) -> tuple[nn.GRU, nn.Linear]:
    """Make a bidirectional GRU, and the correction of six logits from its states, which is zero at first."""
    dropout = cfg.dropout if cfg.layers > 1 else 0.0
    gru = nn.GRU(inputs, cfg.hidden, cfg.layers, batch_first=True, bidirectional=True, dropout=dropout)
    correct = nn.Linear(2 * cfg.hidden, N_CLASSES)
    nn.init.zeros_(correct.weight)
    nn.init.zeros_(correct.bias)
    return gru, correct


def study_views(studies: Studies, mask: Tensor) -> Tensor:
    """Compute the inputs of the residual path as logits; (study, slab, view, 6)."""
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
    """Differences from the slab below and to the slab above; zero at both ends of a study."""
    step = x[:, 1:] - x[:, :-1]
    inside = torch.arange(1, x.shape[1], device=x.device)[None] < lengths.to(x.device)[:, None]
    step = step * inside[..., None]
    edge = torch.zeros_like(x[:, :1])
    return torch.cat([edge, step], dim=1), torch.cat([step, edge], dim=1)


def study_geometry(z_mm: Tensor, lengths: Tensor) -> Tensor:
    """Distances to both neighbours in nominal spacings, and position from 0 to 1; (study, slab, 3)."""
    below, above = _differences(z_mm[..., None], lengths)
    span = z_mm.gather(1, (lengths.to(z_mm.device) - 1)[:, None]) - z_mm[:, :1]
    position = (z_mm - z_mm[:, :1]) / span.clamp_min(1.0)
    below, above = (4 * torch.tanh(gap / (4 * NOMINAL_SPACING_MM)) for gap in (below, above))
    return torch.cat([below, above, position[..., None]], -1)
