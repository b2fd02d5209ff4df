"""Peers: never trained on the studies they are scored on; results do not depend on other studies."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from peers.base import logit, pick, sigmoid
from peers.networks import Biased, NetworkPeer
from peers.quality import CONV, LSTM, PEERS, TRANSFORMER, Peer, cross

from rsna_seq.config import SequenceConfig
from rsna_seq.labels import N_CLASSES
from rsna_seq.nets.studies import EmbeddedStudy, collate
from rsna_seq.scoring.metric import log_loss

BUDGET = SequenceConfig(epochs=1, batch_size=4, lr=0.003)
NETWORKS = (LSTM, CONV, TRANSFORMER)
FEATURES = 24


def _studies(count: int = 12, *, folds: int = 3, seed: int = 0) -> list[EmbeddedStudy]:
    """Studies with haemorrhages over several slices and noisy logits; the last two are held out."""
    random = np.random.default_rng(seed)
    studies = []
    for i in range(count):
        n = int(random.integers(9, 20))
        labels = np.zeros((n, N_CLASSES), dtype=np.float32)
        if i % 4:
            start = int(random.integers(0, n - 7))
            labels[start : start + 7, i % (N_CLASSES - 1)] = labels[start : start + 7, -1] = 1
        logits = (4 * labels - 2.5 + random.normal(0, 2, labels.shape)).astype(np.float32)
        vectors = random.normal(0, 1, (n, FEATURES)).astype(np.float32)
        vectors[:, :N_CLASSES] += 2 * labels
        cross_fold = -1 if i >= count - 2 else i % folds
        z_mm = (5.0 * np.arange(n)).astype(np.float32)
        studies.append(EmbeddedStudy(f"S{i}", i % 2, cross_fold, vectors, logits, z_mm, labels))
    return studies


def _by_peer(peer: Peer) -> str:
    return peer.name


@pytest.mark.parametrize("peer", PEERS, ids=_by_peer)
def test_flipped_labels_of_a_fold_leave_its_own_predictions_untouched(peer: Peer) -> None:
    studies = _studies()
    flipped = [replace(s, labels=1 - s.labels) if s.cross_fold == 0 else s for s in studies]
    mine, chosen = cross(peer, studies, BUDGET)
    theirs, others = cross(peer, flipped, BUDGET)
    assert chosen[0] == others[0]
    left = [(a, b) for a, b in zip(mine, theirs, strict=True) if a.cross == 0]
    assert {studies[a.study].cross_fold for a, _ in left} == {0, -1}
    for a, b in left:
        assert a.logits.tobytes() == b.logits.tobytes()
    if peer.name not in {"rolling mean", "gaussian smoothing"}:  # these learn nothing but a width
        met = [(a, b) for a, b in zip(mine, theirs, strict=True) if a.cross == 1]
        assert any(a.logits.tobytes() != b.logits.tobytes() for a, b in met)


@pytest.mark.parametrize("peer", PEERS, ids=_by_peer)
def test_every_study_is_scored_by_its_own_fold_and_a_held_out_one_by_all(peer: Peer) -> None:
    studies = _studies()
    answers, chosen = cross(peer, studies, BUDGET)
    assert sorted(chosen) == [0, 1, 2]
    for i, study in enumerate(studies):
        mine = [a for a in answers if a.study == i]
        assert [a.cross for a in mine] == ([0, 1, 2] if study.cross_fold == -1 else [study.cross_fold])
        assert all(a.logits.shape == (len(study), N_CLASSES) and np.isfinite(a.logits).all() for a in mine)


@pytest.mark.parametrize("peer", PEERS, ids=_by_peer)
def test_a_score_does_not_depend_on_the_other_studies_that_are_scored(peer: Peer) -> None:
    studies = _studies()
    everyone, _ = cross(peer, studies, BUDGET)
    fewer, _ = cross(peer, studies[:-1], BUDGET)  # the last one is held out, so it is not used in training
    kept = [a for a in everyone if a.study < len(studies) - 1]
    assert [a.logits.tobytes() for a in kept] == [a.logits.tobytes() for a in fewer]


@pytest.mark.parametrize("peer", NETWORKS, ids=_by_peer)
def test_padding_changes_nothing(peer: NetworkPeer) -> None:
    torch.manual_seed(0)
    net = Biased(peer.build(FEATURES + N_CLASSES), np.zeros(N_CLASSES)).eval()
    studies = _studies(6)
    with torch.inference_mode():
        together = net(collate(studies)[0])[0]
        for row, study in zip(together, studies, strict=True):
            alone = net(collate([study])[0])[0][0]
            torch.testing.assert_close(row[: len(study)], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("peer", PEERS, ids=_by_peer)
def test_a_peer_learns_from_neighbouring_slices(peer: Peer) -> None:
    studies = [s for s in _studies(42, seed=1) if s.cross_fold >= 0]
    train, left = ([s for s in studies if (s.cross_fold == 0) is mine] for mine in (False, True))
    budget = SequenceConfig(epochs=12, batch_size=4, lr=0.005, drop_slices=0.0)
    scorer = peer.fit(peer.settings[0], train, budget, 0, "cpu")
    labels = np.concatenate([s.labels for s in left])
    before = log_loss(labels, sigmoid(np.concatenate([s.logits for s in left])))
    after = log_loss(labels, sigmoid(np.concatenate([scorer(s) for s in left])))
    assert after < 0.9 * before


def test_the_setting_is_picked_on_a_fold_that_is_left_out_once_more() -> None:
    seen: list[set[int]] = []

    class Spy:
        name = "spy"
        settings = (1, 2)

        def fit(self, setting, train, budget, seed, device):  # type: ignore[no-untyped-def]
            seen.append({s.cross_fold for s in train})
            return lambda study: logit(study.labels * 0.8 + 0.1 if setting == 2 else study.labels * 0 + 0.5)

    train = [s for s in _studies() if s.cross_fold in {0, 1}]
    assert pick(Spy(), train, BUDGET, seed=0, device="cpu") == 2
    assert seen == [{0}, {0}]
    assert pick(Spy(), [s for s in train if s.cross_fold == 0], BUDGET, seed=0, device="cpu") == 1


def test_a_class_that_training_never_saw_gets_its_small_share() -> None:
    studies = [replace(s, labels=s.labels * (np.arange(N_CLASSES) != 0)) for s in _studies()]
    boosting = next(p for p in PEERS if p.name == "lightgbm alone")
    scorer = boosting.fit(boosting.settings[0], studies, BUDGET, 0, "cpu")
    assert (sigmoid(scorer(studies[0]))[:, 0] < 0.01).all()
