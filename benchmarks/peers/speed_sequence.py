"""The sequence model trained as published: shuffled batches of four studies, padded to the longest."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rsna_seq.config import SequenceConfig
from rsna_seq.nets.cnn import weighted_bce
from rsna_seq.nets.loop import Job, fit
from rsna_seq.nets.sequence_model import SequenceModel
from rsna_seq.nets.studies import EmbeddedStudy, Studies, augment_study, collate

_BATCH = 4
_LR = 2e-3
"""Best of 0.0005, 0.001, 0.002 for batches of four."""


def fit_fours(
    cfg: SequenceConfig,
    train: list[EmbeddedStudy],
    score: Callable[[nn.Module], float],
    folder: Path,
    *,
    seed: int,
) -> SequenceModel:
    """Train the same network with the same optimizer, schedule and augmentation.

    Source: D. Hanley & D. Larko, 2nd place of the 2019 competition, darraghdog/rsna, ``trainlstm.py``.

    Args:
        cfg: Network and training.
        train: Labelled studies.
        score: Computes the held-out loss of a network; called after each epoch.
        folder: Output folder of ``history.json``.
        seed: Random seed.
    """
    torch.manual_seed(seed)
    cfg = cfg.model_copy(update={"batch_size": _BATCH, "lr": _LR})
    net = SequenceModel(cfg, train[0].vectors.shape[1])

    def batches(epoch: int) -> Iterator[tuple[Studies, Tensor]]:
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(len(train))
        for at in range(0, len(train), _BATCH):
            chosen = [train[i] for i in order[at : at + _BATCH]]
            yield collate(
                [augment_study(s, random, reverse=cfg.reverse, drop=cfg.drop_slices) for s in chosen]
            )

    def loss(model: nn.Module, batch: tuple[Studies, Tensor]) -> Tensor:
        mask, truth = batch[0].mask, batch[1][batch[0].mask]
        final, refined = model(batch[0])
        return weighted_bce(final[mask], truth) + cfg.slice_loss * weighted_bce(refined[mask], truth)

    steps = -(-len(train) // _BATCH)
    job = Job("fours", net, steps, batches, loss, lambda batch, _: [(batch, 1.0)], score)
    return fit(job, cfg, folder, device=torch.device("cpu"), seed=seed)  # type: ignore[return-value]
