"""Training of many small sequence models as one on a CPU: all crossed folds and seeds of a config.

The weights of the networks are stacked along a leading axis, and ``torch.vmap`` runs
:class:`~rsna_seq.nets.sequence_model.SequenceModel` over it. Each network keeps its own studies, order,
augmentation, dropout, learning-rate schedule, gradient norm and moving average, all from its own seed: it
ends with the weights that it would have if it were trained alone.

1. Per step, one batch per network, padded to one size (:mod:`rsna_seq.nets.batches`).
2. Losses per network, one backward pass, one step of :class:`~rsna_seq.nets.optimizer.StackedAdamW`. A
   network without a batch left in this epoch, or with a loss that is not finite, is not changed.
3. After each epoch: validation scores, and one ``state.pt`` for all networks. A run that was killed resumes
   from it and ends with the same weights as an uninterrupted run.
4. At the end: ``last.safetensors``, ``best.safetensors`` and ``history.json`` of each network.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from torch.func import functional_call, stack_module_state
from torch.nn import functional as F

from rsna_seq.arrays import Floats, sigmoid
from rsna_seq.config import SequenceConfig
from rsna_seq.console import progress, say
from rsna_seq.labels import CLASS_WEIGHTS
from rsna_seq.nets.batches import Batch, Training, batches_of, joined
from rsna_seq.nets.loss_record import must_not_go_on_skipping
from rsna_seq.nets.optimizer import StackedAdamW
from rsna_seq.nets.resume import read_state, write_state
from rsna_seq.nets.sequence_model import Drops, SequenceModel
from rsna_seq.nets.studies import Studies, collate
from rsna_seq.nets.weak import partial_losses, study_loss
from rsna_seq.scoring.metric import log_loss
from rsna_seq.store.files import write_bytes, write_json
from rsna_seq.store.study_labels import UNKNOWN

_CPU = torch.device("cpu")


def fit_batched(cfg: SequenceConfig, trainings: list[Training], state: Path) -> list[SequenceModel]:
    """Train networks of one config on the CPU, or resume an interrupted training.

    Args:
        cfg: Network and training; ``accumulate`` must be 1.
        trainings: The networks.
        state: The file ``state.pt``, deleted at the end.

    Returns:
        The trained networks in evaluation mode, in the order of ``trainings``; their moving averages if
        ``cfg.ema_decay`` is set.

    Raises:
        EnvironmentFaultError: The loss of a network is not finite for several consecutive steps; the weights
            of the last finished epoch are kept in ``state``.
        IntegrityError: ``state.pt`` is damaged.
    """
    assert cfg.accumulate == 1
    with _one_thread():
        return _fit(cfg, trainings, state)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: with operations this small, threads wait for each other longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fit(cfg: SequenceConfig, trainings: list[Training], state: Path) -> list[SequenceModel]:
    run = _Run(cfg, trainings)
    run.resume(state)
    steps, done = max(run.steps), run.progress.epoch
    with progress("sequence", cfg.epochs * steps) as advance:
        advance(done * steps)
        for epoch in range(done, cfg.epochs):
            losses, scores = run.epoch(advance), run.scores()
            run.close_epoch(losses, scores, state)
            say(
                "sequence",
                f"epoch {epoch + 1} of {cfg.epochs}, {len(trainings)} networks: "
                f"loss {np.mean(losses):.4f}, validation {np.mean(scores):.4f}",
            )
    run.write()
    state.unlink(missing_ok=True)
    return [run.network(n) for n in range(len(trainings))]


@dataclass
class _Progress:
    """Progress of all networks, without the tensors."""

    best: list[float]
    skipped: list[int]
    taken: list[int]
    history: list[list[dict[str, float]]]
    epoch: int = 0
    bad: list[int] = field(default_factory=list)
    """Consecutive losses that were not finite, by network."""


class _Run:
    """Stacked weights, optimizer and progress of a training."""

    def __init__(self, cfg: SequenceConfig, trainings: list[Training]) -> None:
        self.cfg, self.trainings = cfg, trainings
        self.features, count = trainings[0].train[0].vectors.shape[1], len(trainings)
        self.partial = any(s.is_partial for t in trainings for s in t.train)
        self.steps = [-(-len(t.train) // cfg.batch_size) for t in trainings]
        nets = []
        for training in trainings:
            torch.manual_seed(training.seed)
            nets.append(SequenceModel(cfg, self.features))
        stacked, _ = stack_module_state(nets)
        self.weights = {k: w.detach().requires_grad_() for k, w in stacked.items()}
        self.optimizer = StackedAdamW(cfg, self.weights, [steps * cfg.epochs for steps in self.steps])
        self.best = {k: w.detach().clone() for k, w in self.weights.items()}
        self.template = SequenceModel(cfg, self.features)
        self.template.stacked = True
        self.progress = _Progress(
            [math.inf] * count, [0] * count, [0] * count, [[] for _ in trainings], bad=[0] * count
        )

    def network(self, n: int) -> SequenceModel:
        """Copy one network out of the stack."""
        net = SequenceModel(self.cfg, self.features)
        net.load_state_dict({k: w[n] for k, w in self.optimizer.kept.items()})
        return net.eval()

    def epoch(self, advance: Callable[[int], None]) -> list[float]:
        """Train one epoch and return the mean loss of each network."""
        self.template.train()
        self.progress.bad = [0] * len(self.trainings)
        values: list[list[float]] = [[] for _ in self.trainings]
        each = [batches_of(self.cfg, t, self.progress.epoch) for t in self.trainings]
        for batches in zip_longest(*each):
            losses = self._losses(joined(list(batches)))
            there = [batch is not None for batch in batches]
            for n, loss in enumerate(self._step(losses, there)):
                values[n] += [loss] if there[n] and math.isfinite(loss) else []
            advance(1)
        return [sum(own) / max(1, len(own)) for own in values]

    def _step(self, losses: Tensor, there: list[bool]) -> list[float]:
        """Update the networks that have a batch and a finite loss; return the losses."""
        values: list[float] = losses.tolist()
        good = [t and math.isfinite(v) for t, v in zip(there, values, strict=True)]
        if any(good):
            total = losses[torch.tensor(good)].sum()
            gradients = torch.autograd.grad(total, list(self.weights.values()), allow_unused=True)
            named = {k: g for k, g in zip(self.weights, gradients, strict=True) if g is not None}
            good = self.optimizer.step(named, good)
        for n, training in enumerate(self.trainings):
            if there[n]:
                self.progress.bad[n] = 0 if good[n] else self.progress.bad[n] + 1
                self.progress.skipped[n] += not good[n]
                must_not_go_on_skipping(training.name, self.progress.bad[n])
        return values

    def _losses(self, batch: Batch) -> Tensor:
        """Loss of each network, (network,): official class weights, mean over its slabs."""
        if self.partial:
            return self._partial_losses(batch)
        classes = torch.as_tensor(CLASS_WEIGHTS, dtype=torch.float32)
        final, refined = (
            F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none") @ classes
            for logits in self._apply(self.weights, batch)
        )
        loss = (final + self.cfg.slice_loss * refined) * batch.weight
        return torch.where(batch.weight > 0, loss, 0.0).sum((1, 2))

    def _partial_losses(self, batch: Batch) -> Tensor:
        """The same where labels are unknown, or known of the study only; a study counts as some slabs."""
        cfg, labels = self.cfg, batch.labels.masked_fill(batch.weight[..., None] == 0, UNKNOWN)
        total = torch.zeros(len(labels))
        for part, logits in zip((1.0, cfg.slice_loss), self._apply(self.weights, batch), strict=True):
            slabs = (partial_losses(logits, labels) * batch.weight).sum((1, 2))
            studies = study_loss(logits.flatten(0, 1), labels.flatten(0, 1), cfg.study_pool)
            own = studies.view(len(labels), -1).sum(1) * batch.weight.amax((1, 2))
            total = total + part * (slabs + cfg.study_loss * own)
        return total

    def _apply(self, weights: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """Run every network on its own batch; both results (network, study, slab, 6)."""

        def one(own: dict[str, Tensor], studies: Studies, drops: Drops | None) -> Any:
            return functional_call(self.template, own, (studies, drops))

        dims = (0, 0, None if batch.drops is None else 0)
        outputs: tuple[Tensor, Tensor] = torch.vmap(one, in_dims=dims)(weights, batch.studies, batch.drops)
        return outputs

    @torch.no_grad()
    def scores(self) -> list[float]:
        """Official metric of each network on its unseen studies; NaN if there are none."""
        self.template.eval()
        unseen, size = [sorted(t.unseen, key=len) for t in self.trainings], self.cfg.batch_size
        found: list[list[Floats]] = [[] for _ in unseen]
        for at in range(0, max(len(own) for own in unseen), size):
            parts = [own[at : at + size] for own in unseen]
            batch = joined([(*collate(part), None) if part else None for part in parts])
            logits = self._apply(self.optimizer.kept, batch)[0].double().numpy()
            for n, part in enumerate(parts):
                found[n] += [logits[n, i, : len(s)] for i, s in enumerate(part)]
        return [
            log_loss(np.concatenate([s.labels for s in own]), sigmoid(np.concatenate(logits)))
            if own
            else math.nan
            for own, logits in zip(unseen, found, strict=True)
        ]

    def close_epoch(self, losses: list[float], scores: list[float], file: Path) -> None:
        """Record the epoch, keep the weights of the best one, and write ``state.pt``."""
        done, kept = self.progress, self.optimizer.kept
        done.epoch, done.taken = done.epoch + 1, self.optimizer.taken
        for n, (loss, score) in enumerate(zip(losses, scores, strict=True)):
            done.history[n].append({"epoch": done.epoch, "loss": loss, "score": score})
            if score < done.best[n]:
                done.best[n] = score
                for name, weights in self.best.items():
                    weights[n] = kept[name][n]
        write_state(file, {"tensors": self._tensors(), "progress": vars(done)})

    def write(self) -> None:
        """Write weights and history of each network; ``best`` only if the network was scored."""
        for n, training in enumerate(self.trainings):
            files = {"last": self.optimizer.kept}
            if math.isfinite(self.progress.best[n]):
                files["best"] = self.best
            for name, stacked in files.items():
                content = save({k: w[n].contiguous() for k, w in stacked.items()})
                write_bytes(training.folder / f"{name}.safetensors", content)
            write_json(training.folder / "history.json", self.progress.history[n])

    def _tensors(self) -> dict[str, Tensor]:
        return self.optimizer.tensors() | {f"best.{k}": w for k, w in self.best.items()}

    @torch.no_grad()
    def resume(self, file: Path) -> None:
        """Load the ``state.pt`` of an interrupted training, if it exists."""
        saved = read_state(file, _CPU)
        if saved is None:
            return
        for name, tensor in self._tensors().items():
            tensor.copy_(saved["tensors"][name])
        self.progress = _Progress(**saved["progress"])
        self.optimizer.taken = self.progress.taken
