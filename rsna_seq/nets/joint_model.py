"""Joint network: a CNN and a GRU that are trained together on whole studies.

1. (slab, slice, y, x) HU of all studies of a batch -> CNN -> (slab, feature) vectors and (slab, 6) logits. In
   chunks with gradient checkpointing (Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016) where
   a batch does not fit into memory: activations inside a chunk are computed again in the backward pass.
2. Residual path: the logits, and per class a mix of their differences to the views of the study (Gaussian
   averages along z, maximum, mean).
3. GRU: projected vectors, logits and geometry -> hidden states -> a correction of the logits.

Mix and correction are zero at the start, so an untrained joint network equals the CNN. Batch norm stays in
evaluation mode: the slices of a batch are those of a few studies, whose statistics are not those of the data.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from rsna_seq.config import EmbedConfig, JointConfig
from rsna_seq.labels import N_CLASSES
from rsna_seq.nets.cnn import Embedder, load_weights
from rsna_seq.nets.sequence_model import VIEWS, study_geometry, study_gru, study_views
from rsna_seq.nets.studies import Studies

_MIX_RATE = 20.0
"""Factor by which the few weights of the mix learn faster than those of the GRU."""
_CHUNK = 64
"""Slices per forward pass of a CNN that is not trained: enough to fill a device."""


class JointModel(nn.Module):
    """CNN and GRU, from the slices of whole studies to six logits per slice.

    Args:
        cfg: Widths, layers, dropout.
        embedder: The CNN, with the weights at which training starts.
    """

    def __init__(self, cfg: JointConfig, embedder: Embedder) -> None:
        super().__init__()
        self.cfg, self.embedder, self.frozen = cfg, embedder, False
        self.drop = nn.Dropout(cfg.dropout)
        self.norm = nn.LayerNorm(embedder.features, elementwise_affine=False)
        self.project = nn.Linear(embedder.features, cfg.projection_dim)
        self.gru, self.correct = study_gru(cfg, cfg.projection_dim + N_CLASSES + 3)
        self.mix = nn.Parameter(torch.zeros(VIEWS, N_CLASSES))

    def freeze(self, frozen: bool) -> None:
        """Exclude the CNN from training, or include it."""
        self.frozen = frozen
        self.embedder.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "JointModel":
        """Set training mode; a frozen CNN and all batch norms stay in evaluation mode."""
        super().train(mode)
        self.embedder.train(mode and not self.frozen)
        for module in self.embedder.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def forward(
        self, hu: Tensor, z_mm: Tensor, lengths: Tensor, chunk: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Score whole studies.

        Args:
            hu: (slab, slice, y, x) HU, the slabs of all studies one after another.
            z_mm: (study, slab) positions, padded.
            lengths: (study,) number of slabs, on the CPU.
            chunk: Slices that the CNN processes at once, with gradient checkpointing; None processes all.

        Returns:
            (slab, 6) logits, and (slab, 6) logits of the CNN alone, in the order of ``hu``.
        """
        vectors, logits = self.encode(hu, chunk)
        return self.refine(vectors, logits, z_mm, lengths), logits

    def encode(self, hu: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor]:
        """Run the CNN; (slab, feature) vectors and (slab, 6) logits."""
        if self.frozen:
            with torch.no_grad():
                parts = [
                    self.embedder.embed_within_memory(self.embedder.windowed(part))
                    for part in hu.split(min(chunk or _CHUNK, _CHUNK))
                ]
        elif chunk is None or len(hu) <= chunk:
            parts = [self.embedder(hu)]
        else:
            parts = [checkpoint(self.embedder, part, use_reentrant=False) for part in hu.split(chunk)]
        return torch.cat([v for v, _ in parts]), torch.cat([z for _, z in parts])

    def refine(self, vectors: Tensor, logits: Tensor, z_mm: Tensor, lengths: Tensor) -> Tensor:
        """Refine the logits of the CNN with the whole study.

        Args:
            vectors: (slab, feature), the slabs of all studies one after another.
            logits: (slab, 6).
            z_mm: (study, slab) positions, padded.
            lengths: (study,) number of slabs, on the CPU.

        Returns:
            (slab, 6) logits.
        """
        with torch.autocast(vectors.device.type, enabled=False):  # logits of rare classes need fp32
            vectors, logits = vectors.float(), logits.float()
            slabs = lengths.tolist()
            padded = nn.utils.rnn.pad_sequence(list(logits.split(slabs)), batch_first=True)
            studies = Studies(padded, padded, z_mm.float(), lengths)
            mask = studies.mask
            hidden = torch.relu(self.project(self.drop(self.norm(vectors))))
            hidden = nn.utils.rnn.pad_sequence(list(hidden.split(slabs)), batch_first=True)
            inputs = torch.cat([padded, study_geometry(studies.z_mm, lengths), hidden], dim=-1)
            packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
            states, _ = pad_packed_sequence(
                self.gru(packed)[0], batch_first=True, total_length=padded.shape[1]
            )
            change = (study_views(studies, mask) - padded[:, :, None]) * (_MIX_RATE * self.mix)
            refined: Tensor = padded + change.sum(-2) + self.correct(self.drop(states))
            return refined[mask]


def load_joint(cfg: JointConfig, embed: EmbedConfig, file: Path) -> JointModel:
    """Build a joint network, load trained weights and set evaluation mode.

    Raises:
        IntegrityError: The file is missing, damaged, or belongs to another network.
    """
    model = JointModel(cfg, Embedder(embed, start=False))
    load_weights(model, file)
    return model.eval()
