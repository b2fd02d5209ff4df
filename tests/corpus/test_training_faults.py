"""Faults of training: too little memory, losses that are not finite, a run that is killed."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ledger import handled
from linear_job import linear_job
from torch import Tensor

from rsna_seq.config import FitConfig
from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.nets.loop import fit


def test_a_batch_that_memory_does_not_hold_is_halved(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = fit(linear_job([]), FitConfig(epochs=1), tmp_path / "whole", device=torch.device("cpu"), seed=0)
    cut = fit(
        linear_job([], fits=8), FitConfig(epochs=1), tmp_path / "cut", device=torch.device("cpu"), seed=0
    )
    torch.testing.assert_close(cut.weight, whole.weight)
    assert "memory" in capfd.readouterr().err
    handled(9, "GPU out of memory: the batch halves, recorded")


def test_losses_that_are_no_number_stop_with_the_last_good_weights(tmp_path: Path) -> None:
    few = fit(
        linear_job([1, math.nan]), FitConfig(epochs=1), tmp_path / "few", device=torch.device("cpu"), seed=0
    )
    assert torch.isfinite(few.weight).all()
    many = linear_job([1.0] * 8 + [math.nan] * 16)
    with pytest.raises(EnvironmentFaultError, match="loss was not finite"):
        fit(many, FitConfig(epochs=3), tmp_path / "many", device=torch.device("cpu"), seed=0)
    assert (tmp_path / "many" / "last.safetensors").is_file()
    handled(10, "NaN loss: a few steps skipped, then the last good weights are kept")


def test_two_epochs_killed_and_two_more_are_four(tmp_path: Path) -> None:
    cfg, cpu = FitConfig(epochs=4), torch.device("cpu")
    whole = fit(linear_job([]), cfg, tmp_path / "whole", device=cpu, seed=0)
    job, batches = linear_job([]), linear_job([]).batches

    def dies(epoch: int) -> list[Tensor]:
        if epoch == 2:
            raise KeyboardInterrupt
        return list(batches(epoch))

    with pytest.raises(KeyboardInterrupt):
        fit(replace(job, batches=dies), cfg, tmp_path / "cut", device=cpu, seed=0)
    again = fit(linear_job([]), cfg, tmp_path / "cut", device=cpu, seed=0)
    torch.testing.assert_close(again.weight, whole.weight, rtol=0, atol=0)
    handled(11, "two epochs, killed, two more: four epochs")
