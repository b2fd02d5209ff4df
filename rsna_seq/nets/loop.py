"""The one training loop, for the CNN and for the sequence model.

1. AdamW without decay on biases and norms; the learning rate rises, then falls as a cosine.
2. Each epoch: the batches of that epoch (a pure function of its number), loss, clipped step, EMA.
3. After it: a score, ``best.safetensors``, ``last.safetensors`` and ``state.pt``; a run that was killed goes
   on from there and ends with the weights of one that never was.
"""

import io
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from blake3 import blake3
from safetensors.torch import save
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from rsna_seq.config import FitConfig
from rsna_seq.console import progress, say
from rsna_seq.errors import EnvironmentFaultError, IntegrityError, UsageError
from rsna_seq.store.files import write_bytes, write_json

_DIGEST_BYTES = 32
_BAD_STEPS = 5
"""Losses in a row that are no number, after which training stops."""


@dataclass(frozen=True)
class Job:
    """What is trained: a network, its batches, its loss, its score."""

    name: str
    net: nn.Module
    steps: int
    """Batches an epoch."""
    batches: Callable[[int], Iterable[Any]]
    """The batches of an epoch, made from its number alone; every process walks all and takes its share."""
    loss: Callable[[nn.Module, Any], Tensor]
    """Mean loss of a batch, which it moves to the network's device."""
    split: Callable[[Any, int], list[tuple[Any, float]]]
    """Cut a batch into so many pieces, or fewer, each with its share of the samples, where memory ends."""
    score: Callable[[nn.Module], float]
    """Validation metric, lower is better. It is reported and picks ``best``, but the pipeline goes on with
    ``last``: weights picked by the fold that was left out would no longer be out of fold."""


@dataclass
class State:
    """Where a training stands, beside the tensors."""

    epoch: int = 0
    best: float = math.inf
    skipped: int = 0
    pieces: int = 1
    """Parts into which a batch is cut, so that it fits into the device's memory."""
    history: list[dict[str, float]] = field(default_factory=list)


def resolve_device(name: str) -> torch.device:
    """Turn ``auto`` into the best device of this machine, and any other name into itself.

    Raises:
        UsageError: torch knows no such device.
        EnvironmentFaultError: The device is named, but not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device: {name!r} is none of auto, cpu, cuda, cuda:N, mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EnvironmentFaultError(
            f"device: {name} was asked for, this machine has {torch.cuda.device_count()} GPUs"
        )
    return device


def device_of(net: nn.Module) -> torch.device:
    """The device that a network's weights are on."""
    return next(net.parameters()).device


def fit(job: Job, cfg: FitConfig, folder: Path, *, device: torch.device, seed: int) -> nn.Module:
    """Train, or go on with a training that was interrupted.

    Args:
        job: What is trained.
        cfg: Epochs, optimizer, schedule, averaging.
        folder: Receives ``last.safetensors``, ``best.safetensors``, ``history.json`` and, until the end,
            ``state.pt``.
        device: Where.
        seed: Seed of dropout; everything else random is in the batches.

    Returns:
        The trained network (its average where ``cfg.ema_decay`` is set), in evaluation mode.

    Raises:
        EnvironmentFaultError: The loss is no number for several steps; the last good weights are kept.
    """
    training = _Training(job, cfg, _accelerator(device, cfg))
    training.resume(folder / "state.pt")
    state, first = training.state, training.accelerator.is_main_process
    with progress(job.name, cfg.epochs * job.steps) as advance:
        advance(state.epoch * job.steps)
        for epoch in range(state.epoch, cfg.epochs):
            set_seed(seed + epoch)  # dropout of an epoch is the same, resumed or not
            loss = training.epoch(advance)
            score = job.score(training.kept.eval())
            better, state.best = score < state.best, min(state.best, score)
            state.history.append({"epoch": epoch + 1, "loss": loss, "score": score})
            state.epoch = epoch + 1
            if first:
                training.save(folder, better=better)
            say(job.name, f"epoch {epoch + 1} of {cfg.epochs}: loss {loss:.4f}, validation {score:.4f}")
    if first:
        write_json(folder / "history.json", state.history)
        (folder / "state.pt").unlink(missing_ok=True)
    return training.kept.eval()


class _Training:
    """The moving parts of one training."""

    def __init__(self, job: Job, cfg: FitConfig, accelerator: Accelerator) -> None:
        self.job, self.cfg, self.accelerator, self.state = job, cfg, accelerator, State()
        self.bare = job.net.to(accelerator.device)
        self.net = accelerator.prepare_model(self.bare)
        fused = accelerator.device.type in {"cpu", "cuda"}  # one pass over the weights instead of a dozen
        groups = _decay_groups(self.bare, cfg.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=cfg.lr, fused=fused)
        updates = max(1, math.ceil(job.steps / cfg.accumulate / accelerator.num_processes)) * cfg.epochs
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: _warmup_cosine(step, updates, cfg.warmup)
        )
        self.optimizer = accelerator.prepare_optimizer(optimizer)
        self.average = ModelEmaV3(self.bare, decay=cfg.ema_decay, use_warmup=True) if cfg.ema_decay else None

    @property
    def kept(self) -> nn.Module:
        """The network that is scored and saved: the average where there is one."""
        return self.average.module if self.average else self.bare

    def epoch(self, advance: Callable[[int], None]) -> float:
        """One pass over the batches; the mean loss."""
        self.net.train()
        total, taken, bad = 0.0, 0, 0
        everyone = self.job.batches(self.state.epoch)
        world = self.accelerator.num_processes
        for batch in islice(everyone, self.accelerator.process_index, None, world):
            value = self._step(batch)
            if math.isfinite(value):
                total, taken, bad = total + value, taken + 1, 0
            else:
                bad, self.state.skipped = bad + 1, self.state.skipped + 1
                self._give_up(bad)
            advance(world)
        return total / max(1, taken)

    def _step(self, batch: Any) -> float:
        """One batch; its loss, and no step where that is no number."""
        with self.accelerator.accumulate(self.net):
            value = self._backward(batch)
            if not math.isfinite(value):
                self.optimizer.zero_grad()
                return value
            if self.cfg.max_grad_norm and self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.net.parameters(), self.cfg.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        if self.accelerator.sync_gradients:
            self.schedule.step()
            if self.average is not None:
                self.average.update(self.bare, step=self.schedule.last_epoch)
        return value

    def _backward(self, batch: Any) -> float:
        """Loss and gradients of a batch, in pieces where the device's memory does not hold it whole."""
        while True:
            parts = self.job.split(batch, self.state.pieces)
            try:
                return self._backward_parts(parts)
            except torch.OutOfMemoryError as error:
                if len(parts) < self.state.pieces:
                    raise EnvironmentFaultError(
                        f"{self.job.name}: not even one sample fits into the memory of "
                        f"{self.accelerator.device}; choose a smaller embed.size or backbone"
                    ) from error
            self.optimizer.zero_grad()
            torch.cuda.empty_cache()
            self.state.pieces *= 2
            say(self.job.name, f"out of memory: batches go in {self.state.pieces} pieces from here on")

    def _backward_parts(self, parts: list[tuple[Any, float]]) -> float:
        total = 0.0
        for part, share in parts:
            with self.accelerator.autocast():
                loss = self.job.loss(self.net, part) * share
            total += float(loss.detach())
            if not math.isfinite(total):
                return total
            self.accelerator.backward(loss)
        return total

    def _give_up(self, bad: int) -> None:
        if bad >= _BAD_STEPS:
            raise EnvironmentFaultError(
                f"{self.job.name}: the loss is no number for {bad} steps; the last good weights are kept. "
                "Lower the learning rate, or train without mixed precision (device=cpu)."
            )

    def save(self, folder: Path, *, better: bool) -> None:
        """Write the weights as safetensors, and what a resume needs."""
        weights = save({k: v.detach().cpu().contiguous() for k, v in self.kept.state_dict().items()})
        for name in ("best", "last") if better else ("last",):
            write_bytes(folder / f"{name}.safetensors", weights)
        buffer = io.BytesIO()
        torch.save(
            {k: v.state_dict() for k, v in self._parts().items()} | {"state": asdict(self.state)}, buffer
        )
        state = buffer.getvalue()
        write_bytes(folder / "state.pt", blake3(state).digest() + state)

    def resume(self, file: Path) -> None:
        """Continue from the ``state.pt`` of a training that was interrupted, where there is one.

        Raises:
            IntegrityError: It is damaged.
        """
        if not file.is_file():
            return
        content = file.read_bytes()
        digest, state = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if blake3(state).digest() != digest:
            raise IntegrityError(f"{file}: damaged; --rebuild trains again from the first epoch")
        saved = torch.load(io.BytesIO(state), map_location=self.accelerator.device, weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(saved[name])
        self.state = State(**saved["state"])

    def _parts(self) -> dict[str, Any]:
        parts = {"net": self.bare, "optimizer": self.optimizer, "schedule": self.schedule}
        return parts | ({"average": self.average.module} if self.average else {})


def _accelerator(device: torch.device, cfg: FitConfig) -> Accelerator:
    """One process or many; bf16 where there is a GPU that has it."""
    if device.index is not None:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if half else "no",
        gradient_accumulation_steps=cfg.accumulate,
        step_scheduler_with_optimizer=False,
    )


def _decay_groups(net: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and filters, none for biases, norms and scalars."""
    tensors = [p for p in net.parameters() if p.requires_grad]
    return [
        {"params": [p for p in tensors if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in tensors if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate: a rise, then half a cosine down to zero."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))
