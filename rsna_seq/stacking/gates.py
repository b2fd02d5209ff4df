"""Gates: a refinement of a class is used only where it helps out of fold, by its spread over patients."""

import numpy as np
from numpy.typing import NDArray

from rsna_seq.arrays import Floats, sigmoid
from rsna_seq.labels import CLASSES
from rsna_seq.scoring.metric import class_log_loss

UNSEEN = -1
"""The gate that unseen studies meet: decided on all folds."""


def decide(
    base: Floats,
    boosted: Floats,
    labels: NDArray[np.int8],
    own: NDArray[np.int16],
    patients: NDArray[np.object_],
    folds: list[int],
    clear: float = 2.0,
) -> dict[int, dict[str, bool]]:
    """Decide where a refinement helps: for each fold on the others, for unseen studies on all.

    Args:
        base: (row, 6) logits without it.
        boosted: (row, 6) logits with it, out of fold.
        labels: (row, 6) of 0 and 1.
        own: (row,) crossed fold of a row's patient; -1 is held out and decides nothing.
        patients: (row,) PatientID.
        folds: The crossed folds.
        clear: Standard errors over patients by which a refinement must help.

    Returns:
        Whether each class is refined, by the fold that meets the gate.
    """
    seen = own >= 0
    gain = _class_gain(base[seen], boosted[seen], labels[seen])
    whose, fold_of = patients[seen], own[seen]
    decided = {}
    for fold in (*folds, UNSEEN):
        others = fold_of != fold
        decided[fold] = {
            name: _helps(gain[others, c], whose[others], clear) for c, name in enumerate(CLASSES)
        }
    return decided


def _class_gain(base: Floats, boosted: Floats, labels: NDArray[np.int8]) -> Floats:
    """How much lower the loss of each row and class is after boosting."""

    def loss(logits: Floats) -> Floats:
        return class_log_loss(labels, sigmoid(logits))

    return loss(base) - loss(boosted)


def _helps(gain: Floats, patients: NDArray[np.object_], clear: float) -> bool:
    """Whether the mean gain lies clearly above nothing, by the spread over patients."""
    if len(gain) == 0:
        return False
    _, group = np.unique(patients.astype(str), return_inverse=True)
    total = np.bincount(group, weights=gain - gain.mean())
    error = np.sqrt((total**2).sum()) / len(gain)
    return bool(gain.mean() > clear * error)


def shut(
    new: Floats,
    old: Floats,
    gates: dict[int, dict[str, bool]],
    own: NDArray[np.int16],
    cross: NDArray[np.int16],
) -> None:
    """Take the old logits where the gate is closed that a row's fold, or an unseen study, meets."""
    for fold in [f for f in gates if f != UNSEEN]:
        for c, name in enumerate(CLASSES):
            closed = (cross == fold) & ~np.where(own == -1, gates[UNSEEN][name], gates[fold][name])
            new[closed, c] = old[closed, c]
