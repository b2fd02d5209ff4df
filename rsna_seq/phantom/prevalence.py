"""Bleeds of each study of a set: sampled for the whole set, so that small sets have the right prevalence.

Prevalences follow the competition's labels: 41 % of patients positive; per slice .143 any, .063 subdural,
.048 intraparenchymal, .047 subarachnoid, .035 intraventricular, .0042 epidural. With the number of slices
that a bleed of each type spans, this gives the prevalences per study below. About half of the positive
studies have several types (Flanders AE et al., Radiology: Artificial Intelligence 2020;2(3):e190211).
"""

from dataclasses import dataclass
from math import ceil

import numpy as np

from rsna_seq.phantom.bleeds import KINDS

POSITIVE_SHARE = 0.41
_E, _P, _V, _A, _D = KINDS
COMBINATIONS: tuple[tuple[float, tuple[str, ...]], ...] = (
    (0.225, (_D,)),
    (0.150, (_P,)),
    (0.125, (_A,)),
    (0.115, (_P, _V)),
    (0.065, (_A, _D)),
    (0.060, (_P, _V, _A)),
    (0.050, (_P, _A)),
    (0.050, (_P, _A, _D)),
    (0.045, (_V, _A)),
    (0.045, (_V,)),
    (0.020, (_P, _D)),
    (0.020, (_P, _V, _A, _D)),
    (0.010, (_E,)),
    (0.010, (_E, _A)),
    (0.010, (_E, _D)),
)
"""Frequencies of the combinations of types among positive studies."""


@dataclass(frozen=True)
class StudyPlan:
    """Content of one study of a set."""

    patient: int
    kinds: tuple[str, ...]


def plan_studies(rng: np.random.Generator, studies: int, rare_share: float) -> tuple[StudyPlan, ...]:
    """Plan a set of studies.

    Args:
        rng: Random generator.
        studies: Number of studies.
        rare_share: Minimum fraction of studies with each type; 0 for no minimum.
    """
    need = ceil(rare_share * studies - 1e-9)
    positive = min(studies, max(round(POSITIVE_SHARE * studies), 2 * need))
    kinds = [*_systematic(rng, positive), *([()] * (studies - positive))]
    _raise_rare(rng, kinds, positive, need)
    order = rng.permutation(studies)
    patients = _patients(rng, studies)
    return tuple(StudyPlan(patients[i], kinds[int(order[i])]) for i in range(studies))


def spread(index: int, offset: float) -> float:
    """The index-th number of a low-discrepancy sequence on [0, 1): exact frequencies also in small sets."""
    return (offset + index * 0.6180339887498949) % 1.0


def _systematic(rng: np.random.Generator, positive: int) -> list[tuple[str, ...]]:
    """Combinations for the positive studies, by systematic sampling of their frequencies."""
    edges = np.cumsum([weight for weight, _ in COMBINATIONS])
    at = (np.arange(positive) + rng.random()) / max(positive, 1) * edges[-1]
    return [COMBINATIONS[min(int(k), len(COMBINATIONS) - 1)][1] for k in np.searchsorted(edges, at)]


def _raise_rare(rng: np.random.Generator, kinds: list[tuple[str, ...]], positive: int, need: int) -> None:
    """Give each type its minimum: first by replacing a type above its minimum, then by adding to others."""
    count = {kind: sum(kind in had for had in kinds) for kind in KINDS}
    for kind in sorted(KINDS, key=lambda name: (count[name], name)):
        while count[kind] < need:
            free = [int(i) for i in rng.permutation(positive) if kind not in kinds[int(i)]]
            spare = [i for i in free if len(kinds[i]) == 1 and count[kinds[i][0]] > need]
            if spare:
                i = max(spare, key=lambda j: count[kinds[j][0]])
                count[kinds[i][0]] -= 1
                kinds[i] = (kind,)
            else:
                i = min(free, key=lambda j: len(kinds[j]))
                kinds[i] = tuple(name for name in KINDS if name in {*kinds[i], kind})
            count[kind] += 1


def _patients(rng: np.random.Generator, studies: int) -> list[int]:
    """A patient for each study; about one in eight has a second study, as in the competition data."""
    patients: list[int] = []
    for i in range(studies):
        again = i == 1 or rng.random() < 0.12
        fresh = max(patients, default=-1) + 1
        patients.append(int(rng.choice(patients)) if again and patients else fresh)
    return patients
