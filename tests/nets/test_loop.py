"""Training loop: losses that are not finite, the moving average, the schedule, the devices."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rsna_seq.config import FitConfig
from rsna_seq.errors import EnvironmentFaultError, UsageError
from rsna_seq.nets.loop import Job, fit, resolve_device
from rsna_seq.nets.optimizer import warmup_cosine

CPU = torch.device("cpu")


def _job(loss: "list[float] | None" = None, steps: int = 8) -> Job:
    torch.manual_seed(0)
    net, given = nn.Linear(3, 1), iter(loss or [])
    x = torch.randn(steps, 16, 3)

    def batches(epoch: int) -> list[Tensor]:
        return list(x)

    def measure(model: nn.Module, batch: Tensor) -> Tensor:
        factor = next(given, 1.0)
        return factor * ((model(batch) - batch.sum(1, keepdim=True)) ** 2).mean()

    def split(batch: Tensor, pieces: int) -> list[tuple[Tensor, float]]:
        return [(part, len(part) / len(batch)) for part in batch.chunk(pieces)]

    return Job(
        "test", net, steps, batches, measure, split, lambda model: float(model.weight.detach().abs().sum())
    )


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    job = _job()
    x = torch.randn(64, 3)
    before = ((job.net(x) - x.sum(1, keepdim=True)) ** 2).mean()
    net = fit(job, FitConfig(epochs=20, lr=0.1), tmp_path, device=CPU, seed=0)
    assert ((net(x) - x.sum(1, keepdim=True)) ** 2).mean() < before / 20
    assert (tmp_path / "last.safetensors").is_file()
    assert not (tmp_path / "state.pt").exists()


def test_a_few_losses_that_are_not_finite_are_skipped(tmp_path: Path) -> None:
    net = fit(_job([1, math.nan, 1, math.inf, math.nan]), FitConfig(epochs=2), tmp_path, device=CPU, seed=0)
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_many_in_a_row_stop_the_training_and_keep_the_last_good_weights(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFaultError, match="loss was not finite"):
        fit(_job([1] * 8 + [math.nan] * 8), FitConfig(epochs=3), tmp_path, device=CPU, seed=0)
    assert (tmp_path / "last.safetensors").is_file()


@pytest.mark.parametrize("fits", [1, 4, 16])
def test_a_batch_that_does_not_fit_goes_in_pieces_with_the_same_result(tmp_path: Path, fits: int) -> None:
    whole = fit(_job(), FitConfig(epochs=1), tmp_path / "whole", device=CPU, seed=0)
    job = _job()

    def tight(model: nn.Module, batch: Tensor) -> Tensor:
        if len(batch) > fits:
            raise torch.OutOfMemoryError
        return job.loss(model, batch)

    cut = fit(replace(job, loss=tight), FitConfig(epochs=1), tmp_path / "cut", device=CPU, seed=0)
    torch.testing.assert_close(cut.weight, whole.weight)


def test_memory_too_small_for_one_sample_is_an_error(tmp_path: Path) -> None:
    def never(model: nn.Module, batch: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    with pytest.raises(EnvironmentFaultError, match="one sample does not fit"):
        fit(replace(_job(), loss=never), FitConfig(epochs=1), tmp_path, device=CPU, seed=0)


def test_the_moving_average_differs_from_the_last_weights_and_is_returned(tmp_path: Path) -> None:
    plain = fit(_job(), FitConfig(epochs=2, lr=0.1), tmp_path / "plain", device=CPU, seed=0)
    averaged = fit(_job(), FitConfig(epochs=2, lr=0.1, ema_decay=0.99), tmp_path / "ema", device=CPU, seed=0)
    assert not torch.equal(plain.weight, averaged.weight)


def test_accumulated_batches_step_as_one(tmp_path: Path) -> None:
    fit(_job(), FitConfig(epochs=1, accumulate=4), tmp_path, device=CPU, seed=0)
    assert (tmp_path / "last.safetensors").is_file()


def test_the_rate_rises_then_falls_to_zero() -> None:
    rates = [warmup_cosine(step, 100, 0.1) for step in range(101)]
    assert rates[:10] == sorted(rates[:10])
    assert max(rates) == rates[10] == 1
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0)


def test_devices_are_named_or_refused() -> None:
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="abacus"):
        resolve_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(EnvironmentFaultError, match="GPUs"):
            resolve_device("cuda:7")
