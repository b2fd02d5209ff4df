"""Smoothing along z: the last step of many 2019 solutions, and the baseline of sequence models."""

from typing import Any

import numpy as np

from peers.base import Floats, Scorer, logit, sigmoid
from rsna_seq.config import SequenceConfig
from rsna_seq.nets.studies import EmbeddedStudy
from rsna_seq.scoring.smoothing import smooth_along_z


class RollingMean:
    """Mean of the probabilities of three neighbouring slices; the edge slice is repeated at the ends.

    Source: D. Hanley, 2nd place of the 2019 competition, README of darraghdog/rsna: rolling mean, window 3,
    plain or weighted 0.6 : 1.8 : 0.6. The settings are the two weights of the centre slice. No changes.
    """

    name = "rolling mean"
    settings: tuple[Any, ...] = (1 / 3, 0.6)

    def fit(
        self, setting: Any, train: list[EmbeddedStudy], budget: SequenceConfig, seed: int, device: str
    ) -> Scorer:
        """Return the scorer; the only parameter is the weight, which is selected by ``pick``."""
        share = float(setting)

        def score(study: EmbeddedStudy) -> Floats:
            p = sigmoid(study.logits)
            padded = np.pad(p, ((1, 1), (0, 0)), mode="edge")
            return logit(share * p + (1 - share) / 2 * (padded[:-2] + padded[2:]))

        return score


class GaussianSmoothing:
    """Gaussian smoothing of the probabilities along z, in mm.

    Source: the baseline of ``evaluate`` (:mod:`rsna_seq.scoring.smoothing`), here with four widths.
    """

    name = "gaussian smoothing"
    settings: tuple[Any, ...] = (5.0, 2.5, 8.0, 15.0)

    def fit(
        self, setting: Any, train: list[EmbeddedStudy], budget: SequenceConfig, seed: int, device: str
    ) -> Scorer:
        """Return the scorer; the only parameter is the width, which is selected by ``pick``."""

        def score(study: EmbeddedStudy) -> Floats:
            return logit(smooth_along_z(sigmoid(study.logits), study.z_mm, float(setting)))

        return score
