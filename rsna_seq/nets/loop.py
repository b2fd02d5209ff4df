"""Training loop of the CNN and of the sequence model.

1. AdamW without weight decay on biases and norms; linear warm-up, then cosine decay of the learning rate.
2. Per epoch: the batches of that epoch (a pure function of its number), loss, clipped step, EMA. No step
   waits for the device: the optimizer itself skips a step whose loss or gradient is not finite, and the
   losses are read every 50 batches (:mod:`rsna_seq.nets.loss_record`).
3. After each epoch: a check that all weights are finite, validation score, ``best.safetensors``,
   ``last.safetensors`` and ``state.pt``. A run that was killed resumes from ``state.pt`` and ends with the
   same weights as an uninterrupted run.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import save
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from rsna_seq.config import FitConfig
from rsna_seq.console import progress, say
from rsna_seq.errors import EnvironmentFaultError, UsageError
from rsna_seq.nets.loss_record import LossRecord, must_be_finite
from rsna_seq.nets.optimizer import parameter_groups, warmup_cosine
from rsna_seq.nets.resume import read_state, write_state
from rsna_seq.store.files import write_bytes, write_json


@dataclass(frozen=True)
class Job:
    """A training job: network, batches, loss and validation score."""

    name: str
    net: nn.Module
    steps: int
    """Batches per epoch."""
    batches: Callable[[int], Iterable[Any]]
    """Returns the batches of an epoch, given its number. With several processes, each one iterates over all
    batches and trains on its share."""
    loss: Callable[[nn.Module, Any], Tensor]
    """Mean loss of a batch; moves the batch to the network's device."""
    split: Callable[[Any, int], list[tuple[Any, float]]]
    """Splits a batch into at most that many pieces, each with its share of the samples; used if the device
    runs out of memory."""
    score: Callable[[nn.Module], float]
    """Validation metric, lower is better. It is reported and selects ``best``, but the pipeline uses
    ``last``: if the left-out fold selected the weights, its predictions would not be out of fold."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Factors on the learning rate, by the first part of a parameter's name; 1 for all others."""
    finest: Callable[[Any], int] | None = None
    """Largest useful number of pieces of a batch; None: the number of pieces that ``split`` returns."""


@dataclass
class State:
    """Progress of a training, without the tensors."""

    epoch: int = 0
    best: float = math.inf
    skipped: int = 0
    pieces: int = 1
    """Pieces into which a batch is split, so that it fits into the device's memory."""
    history: list[dict[str, float | None]] = field(default_factory=list)


def resolve_device(name: str) -> torch.device:
    """Resolve a device name; ``auto`` selects the best device of this machine.

    Raises:
        UsageError: The name is not a torch device.
        EnvironmentFaultError: This machine does not have the device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device={name!r}: expected one of auto, cpu, cuda, cuda:N, mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EnvironmentFaultError(
            f"device={name}: not available, this machine has {torch.cuda.device_count()} GPUs"
        )
    return device


def device_of(net: nn.Module) -> torch.device:
    """Return the device of a network's weights."""
    return next(net.parameters()).device


def fit(job: Job, cfg: FitConfig, folder: Path, *, device: torch.device, seed: int) -> nn.Module:
    """Train a network, or resume an interrupted training.

    Args:
        job: Network, batches, loss and score.
        cfg: Epochs, optimizer, schedule, weight averaging.
        folder: Output folder of ``last.safetensors``, ``best.safetensors``, ``history.json`` and, until
            training ends, ``state.pt``.
        device: Device to train on.
        seed: Seed of dropout; all other randomness is in the batches.

    Returns:
        The trained network in evaluation mode; its moving average if ``cfg.ema_decay`` is set.

    Raises:
        EnvironmentFaultError: The loss is not finite for several consecutive steps (noticed within 50
            batches), or a weight is not finite at the end of an epoch; the weights of the last finished epoch
            are kept.
    """
    training = _Training(job, cfg, _accelerator(device, cfg))
    training.resume(folder / "state.pt")
    state, first = training.state, training.accelerator.is_main_process
    with progress(job.name, cfg.epochs * job.steps) as advance:
        advance(state.epoch * job.steps)
        for epoch in range(state.epoch, cfg.epochs):
            set_seed(seed + epoch)  # a resumed run repeats the dropout of the epoch
            loss = training.epoch(advance)
            score = job.score(training.kept.eval())
            better, state.best = score < state.best, min(state.best, score)
            scored = math.isfinite(score)  # there may be no studies that were left out
            state.history.append({"epoch": epoch + 1, "loss": loss, "score": score if scored else None})
            state.epoch = epoch + 1
            if first:
                training.save(folder, better=better)
            validation = f", validation {score:.4f}" if scored else ""
            say(job.name, f"epoch {epoch + 1} of {cfg.epochs}: loss {loss:.4f}{validation}")
    if first:
        write_json(folder / "history.json", state.history)
        (folder / "state.pt").unlink(missing_ok=True)
    return training.kept.eval()


class _Training:
    """Optimizer, schedule, moving average and state of one training."""

    def __init__(self, job: Job, cfg: FitConfig, accelerator: Accelerator) -> None:
        self.job, self.cfg, self.accelerator, self.state = job, cfg, accelerator, State()
        self.bare = job.net.to(accelerator.device)
        self.net = accelerator.prepare_model(self.bare)
        # one pass over the weights instead of several; only the fused optimizer can skip a step by itself
        self.fused = accelerator.device.type in {"cpu", "cuda"}
        groups = parameter_groups(self.bare, cfg, job.rates)
        optimizer = torch.optim.AdamW(groups, lr=cfg.lr, fused=self.fused)
        self.fault = torch.zeros((), device=accelerator.device)
        updates = max(1, math.ceil(job.steps / cfg.accumulate / accelerator.num_processes)) * cfg.epochs
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_cosine(step, updates, cfg.warmup)
        )
        self.optimizer = accelerator.prepare_optimizer(optimizer)
        self.average = ModelEmaV3(self.bare, decay=cfg.ema_decay, use_warmup=True) if cfg.ema_decay else None

    @property
    def kept(self) -> nn.Module:
        """Network that is scored and saved: the moving average if there is one."""
        return self.average.module if self.average else self.bare

    def epoch(self, advance: Callable[[int], None]) -> float:
        """Train one epoch and return the mean loss."""
        self.net.train()
        record = LossRecord(self.job.name)
        everyone = self.job.batches(self.state.epoch)
        world = self.accelerator.num_processes
        for batch in islice(everyone, self.accelerator.process_index, None, world):
            record.add(*self._step(batch))
            advance(world)
        record.read()
        must_be_finite(self.job.name, self.state.epoch + 1, self.bare, self.kept)
        if record.skipped:
            self.state.skipped += record.skipped
            say(self.job.name, f"{record.skipped} steps were skipped: their loss or gradient was not finite")
        return record.mean

    def _step(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """Train on one batch; return its loss and, after an optimizer step, whether that step was skipped."""
        with self.accelerator.accumulate(self.net):
            loss = self._backward(batch)
            self.fault = self.fault + ~loss.isfinite()
            if not self.accelerator.sync_gradients:
                return loss, None
            norm = self.accelerator.clip_grad_norm_(self.net.parameters(), self.cfg.max_grad_norm or math.inf)
            fault = self._update(self.fault + ~norm.isfinite())
        self.schedule.step()
        if self.average is not None:
            self.average.update(self.bare, step=self.schedule.last_epoch)
        return loss, fault

    def _update(self, fault: Tensor) -> Tensor:
        """Make an optimizer step, or skip it on all processes if one has a fault; return the fault of all."""
        fault = self.accelerator.reduce(fault).clamp(max=1)
        if self.fused:  # found_inf is read on the device, as torch.amp.GradScaler does
            self.optimizer.optimizer.found_inf = fault
        if self.fused or not bool(fault):
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.fault = torch.zeros_like(self.fault)
        return fault

    def _backward(self, batch: Any) -> Tensor:
        """Compute loss and gradients of a batch, in pieces if the device runs out of memory."""
        while True:
            parts = self.job.split(batch, self.state.pieces)
            try:
                return self._backward_parts(parts)
            except torch.OutOfMemoryError as error:
                most = len(parts) if self.job.finest is None else self.job.finest(batch)
                if most < self.state.pieces:
                    raise EnvironmentFaultError(
                        f"{self.job.name}: one sample does not fit into the memory of "
                        f"{self.accelerator.device}; choose a smaller embed.size or backbone"
                    ) from error
            self.optimizer.zero_grad()
            torch.cuda.empty_cache()
            self.state.pieces *= 2
            say(self.job.name, f"out of memory: batches are now split into {self.state.pieces} pieces")

    def _backward_parts(self, parts: list[tuple[Any, float]]) -> Tensor:
        total = torch.zeros((), device=self.accelerator.device)
        for part, share in parts:
            with self.accelerator.autocast():
                loss = self.job.loss(self.net, part) * share
            total = total + loss.detach()
            self.accelerator.backward(loss)
        return total

    def save(self, folder: Path, *, better: bool) -> None:
        """Write the weights as safetensors, and ``state.pt`` for resuming."""
        weights = save({k: v.detach().cpu().contiguous() for k, v in self.kept.state_dict().items()})
        for name in ("best", "last") if better else ("last",):
            write_bytes(folder / f"{name}.safetensors", weights)
        parts = {k: v.state_dict() for k, v in self._parts().items()}
        write_state(folder / "state.pt", parts | {"state": asdict(self.state)})

    def resume(self, file: Path) -> None:
        """Load the ``state.pt`` of an interrupted training, if it exists.

        Raises:
            IntegrityError: The file is damaged.
        """
        saved = read_state(file, self.accelerator.device)
        if saved is None:
            return
        for name, part in self._parts().items():
            part.load_state_dict(saved[name])
        self.state = State(**saved["state"])

    def _parts(self) -> dict[str, Any]:
        parts = {"net": self.bare, "optimizer": self.optimizer, "schedule": self.schedule}
        return parts | ({"average": self.average.module} if self.average else {})


def _accelerator(device: torch.device, cfg: FitConfig) -> Accelerator:
    """Set up one or several processes, with bf16 on GPUs that support it."""
    if device.index is not None:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if half else "no",
        gradient_accumulation_steps=cfg.accumulate,
        step_scheduler_with_optimizer=False,
    )
