"""Losses of an epoch, without waiting for the device in every step."""

import math

import torch
from torch import Tensor, nn

from rsna_seq.errors import EnvironmentFaultError

READ_EVERY = 50
"""Batches between two reads of the losses."""
_BAD_STEPS = 5
"""Consecutive skipped steps, after which training stops."""


class LossRecord:
    """Losses and skipped optimizer steps of one epoch.

    ``float(loss)`` waits until the device has computed the loss, and a GPU is then idle until the next batch
    is there. Losses therefore stay on the device and are read every :data:`READ_EVERY` batches. A step whose
    loss or gradient is not finite is skipped by the optimizer at once; only the message comes later.

    Args:
        name: Name of the training, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.skipped = 0
        """Optimizer steps that were skipped, as far as read."""
        self._total, self._taken, self._consecutive = 0.0, 0, 0
        self._losses: list[Tensor] = []
        self._faults: list[Tensor] = []

    def add(self, loss: Tensor, fault: Tensor | None) -> None:
        """Record a batch.

        Args:
            loss: Scalar on the device.
            fault: Scalar on the device, above zero if the optimizer step was skipped; None if this batch only
                accumulated gradients.

        Raises:
            EnvironmentFaultError: As :meth:`read`.
        """
        self._losses.append(loss)
        if fault is not None:
            self._faults.append(fault)
        if len(self._losses) >= READ_EVERY:
            self.read()

    def read(self) -> None:
        """Read what was recorded since the last call; this waits for the device.

        Raises:
            EnvironmentFaultError: Several consecutive steps were skipped.
        """
        if self._losses:
            finite = [loss for loss in torch.stack(self._losses).tolist() if math.isfinite(loss)]
            self._total, self._taken = self._total + sum(finite), self._taken + len(finite)
        for fault in torch.stack(self._faults).tolist() if self._faults else []:
            self._consecutive = self._consecutive + 1 if fault else 0
            self.skipped += bool(fault)
            must_not_go_on_skipping(self.name, self._consecutive)
        self._losses, self._faults = [], []

    @property
    def mean(self) -> float:
        """Mean of the finite losses that were read; NaN if there are none."""
        return self._total / self._taken if self._taken else float("nan")


def must_not_go_on_skipping(name: str, consecutive: int) -> None:
    """Stop a training of which several consecutive steps were skipped.

    Args:
        name: Name of the training.
        consecutive: Number of consecutive skipped steps.

    Raises:
        EnvironmentFaultError: There were too many.
    """
    if consecutive >= _BAD_STEPS:
        raise EnvironmentFaultError(
            f"{name}: the loss was not finite (NaN or infinite), or its gradient, for {consecutive} "
            "consecutive steps. The weights of the last finished epoch are kept. Lower the learning rate, or "
            "train without mixed precision (device=cpu)."
        )


def must_be_finite(name: str, epoch: int, *nets: nn.Module) -> None:
    """Stop a training before weights that are not finite are scored or saved.

    Skipped steps do not protect the running statistics of batch norm, which the forward pass updates.

    Args:
        name: Name of the training.
        epoch: Number of the epoch that ended, from 1.
        nets: The network and its moving average.

    Raises:
        EnvironmentFaultError: A weight or statistic is NaN or infinite.
    """
    finite = [t.isfinite().all() for net in nets for t in net.state_dict().values() if t.is_floating_point()]
    if not bool(torch.stack(finite).all()):
        raise EnvironmentFaultError(
            f"{name}: weights are not finite (NaN or infinite) after epoch {epoch}. Steps with such a loss "
            "were skipped, but batch norm had already seen the batch. The weights of the last finished epoch "
            "are kept. Lower the learning rate, or train without mixed precision (device=cpu)."
        )
