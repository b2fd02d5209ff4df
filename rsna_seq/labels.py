"""The six classes of the competition: names, order and weights.

Source: RSNA Intracranial Hemorrhage Detection (2019), evaluation page: a multi-label log loss in which
``any`` counts twice.
"""

import numpy as np
from numpy.typing import NDArray

CLASSES: tuple[str, ...] = (
    "epidural",
    "intraparenchymal",
    "intraventricular",
    "subarachnoid",
    "subdural",
    "any",
)
"""The classes, in the order of all arrays and tables of this package."""

N_CLASSES = len(CLASSES)

ANY = CLASSES.index("any")
"""Index of the class ``any``."""

CLASS_WEIGHTS: NDArray[np.float64] = np.array([1, 1, 1, 1, 1, 2], dtype=np.float64) / 7
"""Weight of each class in the official metric; they sum to one."""

COLOURS = dict(zip(CLASSES, ("#d55e00", "#e69f00", "#009e73", "#0072b2", "#cc79a7", "#1d2731"), strict=True))
"""One colour per class, from a palette for colour-blind readers (Okabe & Ito 2008); ``any`` is dark."""
