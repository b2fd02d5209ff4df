"""Gates: a refinement is used only if it lowers the out-of-fold loss over patients, per class or for all."""

import numpy as np
from numpy.typing import NDArray

from rsna_seq.arrays import Floats, sigmoid
from rsna_seq.labels import CLASS_WEIGHTS, CLASSES
from rsna_seq.scoring.metric import class_log_loss

Gates = dict[int, dict[str, bool]]
"""Whether a refinement is used, by crossed fold (or UNSEEN) and class."""
UNSEEN = -1
"""Key of the gate for unseen studies, which is decided on all folds."""


def decide(
    base: Floats,
    boosted: Floats,
    labels: NDArray[np.number],
    own: NDArray[np.int16],
    patients: NDArray[np.object_],
    folds: list[int],
    clear: float = 2.0,
    *,
    whole: bool = False,
) -> Gates:
    """Decide per class whether a refinement is used, or by the official metric for all classes alike.

    The decision of a fold is made on the other folds; the decision for unseen studies on all folds.

    Args:
        base: (row, 6) logits without the refinement.
        boosted: (row, 6) logits with the refinement, out of fold.
        labels: (row, 6) of 0 and 1; NaN where unknown: such rows do not decide.
        own: (row,) crossed fold of the row's patient; rows of held-out patients (-1) are ignored.
        patients: (row,) PatientID.
        folds: The crossed folds.
        clear: Minimum gain, in standard errors over patients.
        whole: Decide by the official metric, with one answer for all classes.

    Returns:
        For each fold, and for :data:`UNSEEN`, whether each class is refined.
    """
    seen = own >= 0
    truth = labels[seen]
    gain = class_log_loss(truth, sigmoid(base[seen])) - class_log_loss(truth, sigmoid(boosted[seen]))
    judged = [gain @ CLASS_WEIGHTS] if whole else list(gain.T)
    whose, fold_of = patients[seen], own[seen]
    decided = {}
    for fold in (*folds, UNSEEN):
        others = fold_of != fold
        helps = [_helps(each[others], whose[others], clear) for each in judged]
        decided[fold] = dict(zip(CLASSES, helps * (len(CLASSES) if whole else 1), strict=True))
    return decided


def _helps(gain: Floats, patients: NDArray[np.object_], clear: float) -> bool:
    """Return whether the mean gain exceeds ``clear`` standard errors over patients."""
    known = np.isfinite(gain)
    if not known.all():
        gain, patients = gain[known], patients[known]
    if len(gain) == 0:
        return False
    _, group = np.unique(patients.astype(str), return_inverse=True)
    total = np.bincount(group, weights=gain - gain.mean())
    error = np.sqrt((total**2).sum()) / len(gain)
    return bool(gain.mean() > clear * error)


def shut(
    new: Floats,
    old: Floats,
    gates: Gates,
    own: NDArray[np.int16],
    cross: NDArray[np.int16],
) -> None:
    """Restore the old logits, in place, of rows and classes whose gate is closed.

    Args:
        new: (row, 6) refined logits; modified in place.
        old: (row, 6) logits without the refinement.
        gates: Result of :func:`decide`.
        own: (row,) crossed fold of the row's patient; -1 is held out.
        cross: (row,) crossed fold of the model that made the row.
    """
    for fold in [f for f in gates if f != UNSEEN]:
        for c, name in enumerate(CLASSES):
            closed = (cross == fold) & ~np.where(own == -1, gates[UNSEEN][name], gates[fold][name])
            new[closed, c] = old[closed, c]
