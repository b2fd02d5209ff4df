"""Benchmark of training the sequence model to the same held-out loss, against published batches of four."""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Bench, Options, Row, main
from peers.speed_sequence import fit_fours
from phantoms import scratch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from rsna_seq.config import SequenceConfig
from rsna_seq.labels import ANY, N_CLASSES
from rsna_seq.nets.sequence_model import SequenceModel
from rsna_seq.nets.studies import EmbeddedStudy, collate
from rsna_seq.scoring.metric import log_loss
from rsna_seq.stages import sequence

_FEATURES = 512
_HELD_OUT = 0.25
_EPOCHS = 12
"""As published, for batches of four."""
_LR = 5e-3
"""Best of 0.001, 0.003, 0.005 for batches of sixteen."""
_ROUNDS = 3
Train = Callable[[Path, int], object]


@dataclass
class Clock:
    """Seconds of training per epoch, from the first training step until the network is scored."""

    now: Callable[[], float]
    epochs: list[float] = field(default_factory=list)
    _since: float | None = None

    def note(self, module: nn.Module, _: Any) -> None:
        """Forward hook of all modules."""
        if not isinstance(module, SequenceModel):
            return
        if module.training and self._since is None:
            self._since = self.now()
        elif not module.training and self._since is not None:
            self.epochs.append(self.now() - self._since)
            self._since = None


def measure(options: Options) -> list[Row]:
    """Measure all rows."""
    torch.set_num_threads(1)
    cfg = SequenceConfig(epochs=2 if options.toy else _EPOCHS, lr=_LR)
    studies = draw_studies(options.size)
    cut = round(len(studies) * (1 - _HELD_OUT))
    train, left = studies[:cut], studies[cut:]
    assert_padding_is_masked(cfg, left[:4])
    score = partial(_score, left)
    with scratch(options.data) as folder:
        ours: Train = lambda at, seed: sequence.fit(cfg, train, left, at, seed=seed, device="cpu")  # noqa: E731
        theirs: Train = lambda at, seed: fit_fours(cfg, train, score, at, seed=seed)  # noqa: E731
        curves = [
            (
                _curve(ours, folder / f"ours{i}", i, options),
                _curve(theirs, folder / f"theirs{i}", i, options),
            )
            for i in range(min(_ROUNDS, options.repeats))
        ]
    pairs = [reach(*pair) for pair in curves]
    mine, other = (60 / statistics.median(p[i] for p in pairs) for i in (0, 1))
    quick, slow = (60 * cfg.epochs / statistics.median(c[i][-1][0] for c in curves) for i in (0, 1))
    note = f"to a held-out loss of {statistics.median(p[2] for p in pairs):.4f}"
    return [
        Row("training to an equal loss", "batches of four", "trainings/min", mine, other, 2.0, note=note),
        Row("one epoch", "batches of four", "epochs/min", quick, slow, rule=None),
    ]


def _curve(train: Train, folder: Path, seed: int, options: Options) -> list[tuple[float, float]]:
    """Return cumulative training seconds and held-out loss after each epoch."""
    clock = Clock(options.now)
    hook = register_module_forward_pre_hook(clock.note)
    try:
        train(folder, seed)
    finally:
        hook.remove()
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    spent = np.cumsum(clock.epochs).tolist()
    return [(s, float(h["score"])) for s, h in zip(spent, history, strict=True)]


def reach(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Return the seconds until each reaches the best loss that both reach, and that loss."""
    goal = max(min(loss for _, loss in curve) for curve in (ours, theirs))
    mine, other = (next(s for s, loss in curve if loss <= goal) for curve in (ours, theirs))
    return mine, other, goal


def _score(left: list[EmbeddedStudy], net: nn.Module) -> float:
    assert isinstance(net, SequenceModel)
    logits = np.concatenate([sequence.apply([net], s.vectors, s.logits, s.z_mm) for s in left])
    return log_loss(np.concatenate([s.labels for s in left]), 1 / (1 + np.exp(-logits)))


def assert_padding_is_masked(cfg: SequenceConfig, studies: list[EmbeddedStudy]) -> None:
    """Assert that a study has the same logits alone and in a padded batch."""
    net = SequenceModel(cfg, _FEATURES).eval()
    with torch.inference_mode():
        together, _ = net(collate(studies)[0])
        for row, s in zip(together, studies, strict=True):
            alone = sequence.apply([net], s.vectors, s.logits, s.z_mm)
            assert np.allclose(row[: len(s)].numpy(), alone, atol=1e-4)


def draw_studies(count: int) -> list[EmbeddedStudy]:
    """Generate studies with haemorrhages over several slices, and noisy vectors and logits."""
    random = np.random.default_rng(0)
    directions = random.normal(0, 1, (N_CLASSES, _FEATURES))
    studies = []
    for i in range(count):
        n = int(random.integers(24, 57))
        labels = np.zeros((n, N_CLASSES), dtype=np.float32)
        for c in range(N_CLASSES - 1):
            if random.random() < 0.2:
                start = int(random.integers(0, n - 6))
                labels[start : start + int(random.integers(3, 12)), c] = 1
        labels[:, ANY] = labels[:, :ANY].max(axis=1)
        vectors = (labels @ directions * 0.1 + random.normal(0, 1, (n, _FEATURES))).astype(np.float32)
        logits = (4 * labels - 3 + random.normal(0, 2, labels.shape)).astype(np.float32)
        studies.append(
            EmbeddedStudy(f"S{i}", 0, 0, vectors, logits, 5 * np.arange(n, dtype=np.float32), labels)
        )
    return studies


if __name__ == "__main__":
    raise SystemExit(main(Bench("sequence", "studies", 400, 16, measure)))
