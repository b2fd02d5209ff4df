"""Sequence models that are trained as one, against each trained alone."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_sequence_model import _study

from rsna_seq.config import SequenceConfig
from rsna_seq.errors import EnvironmentFaultError, IntegrityError
from rsna_seq.nets import batched
from rsna_seq.nets.batched import fit_batched
from rsna_seq.nets.batches import Training, joined
from rsna_seq.nets.sequence_model import SequenceModel
from rsna_seq.nets.studies import collate
from rsna_seq.stages import sequence
from rsna_seq.store.study_labels import ONE_OF, UNKNOWN

CFG = SequenceConfig(epochs=3, batch_size=3, projection_dim=16, hidden=8, lr=0.003)


def _trainings(folder: Path, counts: tuple[int, ...] = (7, 4, 10)) -> list[Training]:
    """Networks with different numbers of studies, and so of steps per epoch."""
    return [
        Training(
            f"net {n}",
            10 + n,
            [_study(5 + (3 * i + n) % 9, 100 * n + i) for i in range(count)],
            [_study(6 + i, 50 + i) for i in range(n)],
            folder / f"net{n}",
        )
        for n, count in enumerate(counts)
    ]


def _weights(folder: Path, n: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"net{n}" / "last.safetensors")


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(1, 20), max_size=4), min_size=1, max_size=3).filter(any),
    vectors=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_stacked_networks_give_the_outputs_of_each_network(
    lengths: list[list[int]], vectors: bool, seed: int
) -> None:
    cfg = CFG.model_copy(update={"vectors": vectors})
    studies = [[_study(n, seed + 10 * k + i) for i, n in enumerate(own)] for k, own in enumerate(lengths)]
    run = batched._Run(cfg, [Training("", seed + k, [_study(3, 1)], [], Path()) for k in range(len(studies))])
    with torch.no_grad():
        for weight in run.weights.values():
            weight.add_(0.1 * torch.randn_like(weight))  # corrections are zero in an untrained network
    run.template.eval()
    batch = joined([(*collate(own), None) if own else None for own in studies])
    outputs = run._apply(run.optimizer.kept, batch)
    for n, own in enumerate(studies):
        single = run.network(n)
        for i, study in enumerate(own):
            for stacked, alone in zip(outputs, single(collate([study])[0]), strict=True):
                torch.testing.assert_close(stacked[n, i, : len(study)], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}, {"vectors": False, "layers": 1}])
def test_a_network_trained_with_others_equals_the_network_trained_alone(
    tmp_path: Path, changes: dict[str, float]
) -> None:
    cfg = CFG.model_copy(update=changes)
    fit_batched(cfg, _trainings(tmp_path / "all"), tmp_path / "all" / "state.pt")
    for n, training in enumerate(_trainings(tmp_path / "one")):
        fit_batched(cfg, [training], tmp_path / "one" / "state.pt")
        torch.testing.assert_close(
            _weights(tmp_path / "all", n), _weights(tmp_path / "one", n), atol=1e-5, rtol=1e-4
        )
    assert not list(tmp_path.rglob("state.pt"))


@pytest.mark.parametrize("ema_decay", [0.0, 0.95])
def test_without_dropout_the_common_loop_trains_the_same_network(tmp_path: Path, ema_decay: float) -> None:
    cfg = CFG.model_copy(update={"dropout": 0.0, "vectors": False, "ema_decay": ema_decay})
    nets = fit_batched(cfg, _trainings(tmp_path / "all"), tmp_path / "all" / "state.pt")
    for net, training in zip(nets, _trainings(tmp_path / "one"), strict=True):
        alone = sequence._fit_alone(cfg, training, torch.device("cpu"))
        torch.testing.assert_close(net.state_dict(), alone.state_dict(), atol=1e-5, rtol=1e-3)
    for name in ("history.json", "best.safetensors"):
        assert (tmp_path / "all" / "net1" / name).is_file() == (tmp_path / "one" / "net1" / name).is_file()


def _weak(training: Training) -> Training:
    """The same with studies that are labelled as a whole, and with an unknown class."""
    train = [
        replace(s, labels=np.where(s.labels == 1, np.float32(ONE_OF), s.labels)) if i % 2 else s
        for i, s in enumerate(training.train)
    ]
    train[0].labels[0, 2] = UNKNOWN
    return replace(training, train=train)


@pytest.mark.parametrize("pool", ["max", "attention"])
def test_labels_of_studies_train_the_same_network_in_both_loops(tmp_path: Path, pool: str) -> None:
    cfg = CFG.model_copy(update={"dropout": 0.0, "vectors": False, "study_pool": pool, "epochs": 2})
    counts = (7, 4)
    nets = fit_batched(
        cfg, [_weak(t) for t in _trainings(tmp_path / "all", counts)], tmp_path / "all" / "state.pt"
    )
    for net, training in zip(nets, _trainings(tmp_path / "one", counts), strict=True):
        alone = sequence._fit_alone(cfg, _weak(training), torch.device("cpu"))
        torch.testing.assert_close(net.state_dict(), alone.state_dict(), atol=1e-5, rtol=1e-3)


def test_a_training_that_was_killed_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = CFG.model_copy(update={"ema_decay": 0.9})
    fit_batched(cfg, _trainings(tmp_path / "whole"), tmp_path / "whole" / "state.pt")
    closed = batched._Run.close_epoch

    def close_then_die(self: batched._Run, losses: list[float], scores: list[float], file: Path) -> None:
        closed(self, losses, scores, file)
        if self.progress.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(batched._Run, "close_epoch", close_then_die)
    with pytest.raises(KeyboardInterrupt):
        fit_batched(cfg, _trainings(tmp_path / "cut"), tmp_path / "cut" / "state.pt")
    monkeypatch.undo()
    fit_batched(cfg, _trainings(tmp_path / "cut"), tmp_path / "cut" / "state.pt")
    names = [f.relative_to(tmp_path / "whole") for f in sorted((tmp_path / "whole").rglob("*.*"))]
    assert len(names) >= 6
    for name in names:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(bytes(100))
    with pytest.raises(IntegrityError, match="damaged"):
        fit_batched(CFG, _trainings(tmp_path), tmp_path / "state.pt")


def test_a_network_with_a_loss_that_is_not_finite_stops_and_leaves_the_others_alone(tmp_path: Path) -> None:
    """One study with a NaN logit: its network skips those batches; with such studies only, training stops."""
    trainings = _trainings(tmp_path / "bad")
    broken = replace(trainings[2].train[0], logits=np.full_like(trainings[2].train[0].logits, math.nan))
    trainings[2].train[0] = broken
    fit_batched(CFG, trainings, tmp_path / "bad" / "state.pt")
    fit_batched(CFG, _trainings(tmp_path / "good"), tmp_path / "good" / "state.pt")
    for n in (0, 1):
        torch.testing.assert_close(_weights(tmp_path / "bad", n), _weights(tmp_path / "good", n))
    assert all(torch.isfinite(w).all() for w in _weights(tmp_path / "bad", 2).values())
    trainings[2].train[:] = [broken] * 16
    with pytest.raises(EnvironmentFaultError, match="net 2: the loss was not finite"):
        fit_batched(CFG, trainings, tmp_path / "bad" / "state.pt")


def test_networks_that_are_single_or_large_or_accumulate_take_the_common_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    monkeypatch.setattr(
        sequence, "fit_batched", lambda *_: taken.append("batched") or [SequenceModel(CFG, 16)]
    )
    monkeypatch.setattr(sequence, "_fit_alone", lambda *_: taken.append("alone"))
    two = _trainings(tmp_path, (4, 4))
    sequence.fit_all(CFG, two, tmp_path, device="cpu")
    assert taken == ["batched"]
    sequence.fit_all(CFG, two[:1], tmp_path, device="cpu")
    for changes in ({"hidden": 256}, {"accumulate": 2}):
        sequence.fit_all(CFG.model_copy(update=changes), two, tmp_path, device="cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    sequence.fit_all(CFG, two, tmp_path, device="cpu")
    assert taken == ["batched"] + 7 * ["alone"]
