"""Interface of a peer, and its out-of-fold evaluation."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rsna_seq.config import SequenceConfig
from rsna_seq.nets.studies import EmbeddedStudy
from rsna_seq.scoring.metric import log_loss

Floats = NDArray[np.float64]
Scorer = Callable[[EmbeddedStudy], Floats]
"""Returns the (slab, 6) logits of a study."""
_EPS = 1e-6


class Peer(Protocol):
    """A method that refines logits from the embeddings, logits and positions of a study's slices."""

    @property
    def name(self) -> str:
        """Name in tables and folders."""

    @property
    def settings(self) -> tuple[Any, ...]:
        """At most four settings to try, starting with the one closest to the publication."""

    def fit(
        self, setting: Any, train: list[EmbeddedStudy], budget: SequenceConfig, seed: int, device: str
    ) -> Scorer:
        """Train on labelled studies.

        Args:
            setting: One of ``settings``.
            train: Labelled studies, each embedded by one network.
            budget: Epochs, batch size, augmentation and number of averaged networks of the package's model.
            seed: Random seed.
            device: ``auto`` or a torch device.
        """


class Answer(NamedTuple):
    """Prediction of a model of one crossed fold for a study that it was not trained on."""

    study: int
    """Index in the list of studies."""
    cross: int
    """The crossed fold that the model was not trained on."""
    logits: Floats
    """(slab, 6)."""


def cross(
    peer: Peer, studies: list[EmbeddedStudy], budget: SequenceConfig, *, seed: int = 0, device: str = "cpu"
) -> tuple[list[Answer], dict[int, str]]:
    """Train a peer on the crossed folds and predict the studies that each fold leaves out.

    Args:
        peer: The peer.
        studies: All studies; those of crossed fold -1 are held out and scored by the models of every fold.
        budget: See :meth:`Peer.fit`.
        seed: Random seed.
        device: ``auto`` or a torch device.

    Returns:
        The predictions, and the selected setting by fold.
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
    """Select the best setting of a peer on the last crossed fold of its training studies.

    If all training studies are of one fold, the first setting is used.
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
    """Convert logits to probabilities."""
    p: Floats = 1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64)))
    return p


def logit(probabilities: Floats) -> Floats:
    """Convert probabilities to logits, clipped away from 0 and 1."""
    p = np.clip(probabilities, _EPS, 1 - _EPS)
    z: Floats = np.log(p / (1 - p))
    return z
