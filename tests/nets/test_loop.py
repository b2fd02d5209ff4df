"""Training loop: losses that are not finite, the moving average, the schedule, the devices."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from linear_job import linear_job
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rsna_seq.config import FitConfig
from rsna_seq.errors import EnvironmentFaultError, UsageError
from rsna_seq.nets.loop import fit, resolve_device
from rsna_seq.nets.loss_record import READ_EVERY
from rsna_seq.nets.optimizer import warmup_cosine

CPU = torch.device("cpu")


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    job = linear_job()
    x = torch.randn(64, 3)
    before = ((job.net(x) - x.sum(1, keepdim=True)) ** 2).mean()
    net = fit(job, FitConfig(epochs=20, lr=0.1), tmp_path, device=CPU, seed=0)
    assert ((net(x) - x.sum(1, keepdim=True)) ** 2).mean() < before / 20
    assert (tmp_path / "last.safetensors").is_file()
    assert not (tmp_path / "state.pt").exists()


def test_a_few_losses_that_are_not_finite_are_skipped(tmp_path: Path) -> None:
    net = fit(
        linear_job([1, math.nan, 1, math.inf, math.nan]), FitConfig(epochs=2), tmp_path, device=CPU, seed=0
    )
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_many_in_a_row_stop_the_training_and_keep_the_last_good_weights(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFaultError, match="loss was not finite"):
        fit(linear_job([1] * 8 + [math.nan] * 8), FitConfig(epochs=3), tmp_path, device=CPU, seed=0)
    assert (tmp_path / "last.safetensors").is_file()


def test_a_skipped_step_leaves_the_weights_as_they_were(tmp_path: Path) -> None:
    job = linear_job([math.nan], steps=1)
    before = job.net.weight.detach().clone()  # type: ignore[union-attr,operator]
    assert torch.equal(fit(job, FitConfig(epochs=1), tmp_path, device=CPU, seed=0).weight, before)


def test_one_bad_batch_of_several_accumulated_skips_their_step_only(tmp_path: Path) -> None:
    cfg = FitConfig(epochs=1, accumulate=4, lr=0.1)
    half = fit(linear_job([1, math.nan, 1, 1, 1, 1, 1, 1]), cfg, tmp_path / "a", device=CPU, seed=0)
    none = fit(linear_job([math.nan] * 8), cfg, tmp_path / "b", device=CPU, seed=0)
    assert torch.equal(none.weight, linear_job().net.weight)
    assert torch.isfinite(half.weight).all()
    assert not torch.equal(half.weight, none.weight)


def test_a_finite_loss_whose_gradient_is_not_finite_is_skipped_and_counted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def flat(model: nn.Module, batch: Tensor) -> Tensor:
        return (model(batch) * 0).sqrt().sum()  # the derivative of sqrt at 0 is infinite

    job = replace(linear_job(steps=4), loss=flat)
    before = job.net.weight.detach().clone()  # type: ignore[union-attr,operator]
    assert torch.equal(fit(job, FitConfig(epochs=1), tmp_path, device=CPU, seed=0).weight, before)
    assert "4 steps were skipped" in capfd.readouterr().err
    with pytest.raises(EnvironmentFaultError, match="5 consecutive steps"):
        fit(replace(job, steps=8, batches=linear_job().batches), FitConfig(), tmp_path, device=CPU, seed=0)


def test_losses_that_are_never_finite_are_noticed_within_fifty_batches(tmp_path: Path) -> None:
    seen: list[float] = []

    def measure(model: nn.Module, batch: Tensor) -> Tensor:
        seen.append(1)
        return model(batch).sum() * (math.nan if len(seen) > 310 else 1)

    job = replace(linear_job(steps=300), loss=measure)
    with pytest.raises(EnvironmentFaultError, match="loss was not finite"):
        fit(job, FitConfig(epochs=2, lr=1e-3), tmp_path, device=CPU, seed=0)
    assert 315 <= len(seen) <= 315 + READ_EVERY
    assert torch.isfinite(load_file(tmp_path / "last.safetensors")["weight"]).all()


def test_an_epoch_that_leaves_weights_that_are_not_finite_is_not_saved(tmp_path: Path) -> None:
    x = torch.randn(8, 16, 3)
    spoilt = [*x[:7], torch.full((16, 3), math.nan)]
    job = replace(
        linear_job(),
        net=nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)),
        batches=lambda epoch: spoilt if epoch == 1 else list(x),
        score=lambda model: 0.0,
    )
    with pytest.raises(EnvironmentFaultError, match="after epoch 2"):
        fit(job, FitConfig(epochs=3, ema_decay=0.9), tmp_path, device=CPU, seed=0)
    kept = load_file(tmp_path / "last.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values())
    assert (tmp_path / "state.pt").is_file()


class _Reads(TorchDispatchMode):
    """Count the operations that make the host wait for a value of the device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_step_reads_nothing_from_the_device(tmp_path: Path, accumulate: int) -> None:
    counts = []
    for steps in (8, 40):
        cfg = FitConfig(epochs=1, accumulate=accumulate, ema_decay=0.9)
        with _Reads() as reads:
            fit(linear_job(steps=steps), cfg, tmp_path / str(steps), device=CPU, seed=0)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("fits", [1, 4, 16])
def test_a_batch_that_does_not_fit_goes_in_pieces_with_the_same_result(tmp_path: Path, fits: int) -> None:
    whole = fit(linear_job(), FitConfig(epochs=1), tmp_path / "whole", device=CPU, seed=0)
    job = linear_job()

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
        fit(replace(linear_job(), loss=never), FitConfig(epochs=1), tmp_path, device=CPU, seed=0)


def test_the_moving_average_differs_from_the_last_weights_and_is_returned(tmp_path: Path) -> None:
    plain = fit(linear_job(), FitConfig(epochs=2, lr=0.1), tmp_path / "plain", device=CPU, seed=0)
    averaged = fit(
        linear_job(), FitConfig(epochs=2, lr=0.1, ema_decay=0.99), tmp_path / "ema", device=CPU, seed=0
    )
    assert not torch.equal(plain.weight, averaged.weight)


def test_accumulated_batches_step_as_one(tmp_path: Path) -> None:
    fit(linear_job(), FitConfig(epochs=1, accumulate=4), tmp_path, device=CPU, seed=0)
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
