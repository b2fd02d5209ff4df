"""What a peer is, and how it comes to answers for studies it never saw."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rsna_seq.config import SequenceConfig
from rsna_seq.nets.studies import EmbeddedStudy
from rsna_seq.scoring.metric import log_loss

Floats = NDArray[np.float64]
Scorer = Callable[[EmbeddedStudy], Floats]
"""Gives a study (slab, 6) logits."""
_EPS = 1e-6


class Peer(Protocol):
    """A way from embeddings, logits and positions of a study's slices to better logits."""

    @property
    def name(self) -> str:
        """Name in tables and folders."""

    @property
    def settings(self) -> tuple[Any, ...]:
        """At most four settings that are tried, the one nearest to the publication first."""

    def fit(
        self, setting: Any, train: list[EmbeddedStudy], budget: SequenceConfig, seed: int, device: str
    ) -> Scorer:
        """Learn from labelled studies.

        Args:
            setting: One of ``settings``.
            train: Labelled studies, each in one network's space.
            budget: Epochs, batch, augmentation and networks to average: those of the package's own model.
            seed: Seed of everything random.
            device: ``auto`` or a torch device.
        """


class Answer(NamedTuple):
    """What a model of one crossed fold says of a study that it never saw."""

    study: int
    """Place in the list of studies."""
    cross: int
    """The crossed fold that the model was not trained on."""
    logits: Floats
    """(slab, 6)."""


def cross(
    peer: Peer, studies: list[EmbeddedStudy], budget: SequenceConfig, *, seed: int = 0, device: str = "cpu"
) -> tuple[list[Answer], dict[int, str]]:
    """Let a peer learn on the crossed folds and score what each leaves out.

    Args:
        peer: The peer.
        studies: All studies; those of crossed fold -1 are held out and scored by the models of every fold.
        budget: See :meth:`Peer.fit`.
        seed: Seed of everything random.
        device: ``auto`` or a torch device.

    Returns:
        The answers, and the setting that each fold picked.
    """
    answers, chosen = [], {}
    for fold in sorted({s.cross_fold for s in studies if s.cross_fold >= 0}):
        train = [s for s in studies if s.cross_fold not in {-1, fold}]
        setting = pick(peer, train, budget, seed=seed + 1000 * fold, device=device)
        chosen[fold] = str(setting)
        scorer = peer.fit(setting, train, budget, seed + 1000 * fold, device)
        answers += [Answer(i, fold, scorer(s)) for i, s in enumerate(studies) if s.cross_fold in {-1, fold}]
    return answers, chosen


def pick(peer: Peer, train: list[EmbeddedStudy], budget: SequenceConfig, *, seed: int, device: str) -> Any:
    """Try a peer's settings on the last crossed fold among the studies it may learn from; keep the best.

    Where these are all of one fold, nothing can be tried, and the first setting it is.
    """
    last = max(s.cross_fold for s in train)
    inner = [s for s in train if s.cross_fold != last]
    if not inner or len(peer.settings) == 1:
        return peer.settings[0]
    tried = [s for s in train if s.cross_fold == last]
    labels = np.concatenate([s.labels for s in tried])
    single = budget.model_copy(update={"seeds": 1})

    def loss(setting: Any) -> float:
        scorer = peer.fit(setting, inner, single, seed, device)
        return log_loss(labels, sigmoid(np.concatenate([scorer(s) for s in tried])))

    return min(peer.settings, key=loss)


def sigmoid(logits: NDArray[np.floating]) -> Floats:
    """Probabilities of logits."""
    p: Floats = 1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64)))
    return p


def logit(probabilities: Floats) -> Floats:
    """Logits of probabilities, kept away from 0 and 1."""
    p = np.clip(probabilities, _EPS, 1 - _EPS)
    z: Floats = np.log(p / (1 - p))
    return z
