"""Smoothing along z: what many 2019 solutions ended with, and what any sequence model has to beat."""

from typing import Any

import numpy as np

from peers.base import Floats, Scorer, logit, sigmoid
from rsna_seq.config import SequenceConfig
from rsna_seq.nets.studies import EmbeddedStudy
from rsna_seq.scoring.smoothing import smooth_along_z


class RollingMean:
    """Mean of the probabilities of three neighbouring slices; at a study's ends the edge slice is repeated.

    Source: D. Hanley, 2nd place of the 2019 competition, README of darraghdog/rsna: rolling mean, window 3,
    plain or weighted 0.6 : 1.8 : 0.6. The settings are these two shares of the centre. Nothing was scaled.
    """

    name = "rolling mean"
    settings: tuple[Any, ...] = (1 / 3, 0.6)

    def fit(
        self, setting: Any, train: list[EmbeddedStudy], budget: SequenceConfig, seed: int, device: str
    ) -> Scorer:
        """Nothing is learnt but the share, which is picked outside."""
        share = float(setting)

        def score(study: EmbeddedStudy) -> Floats:
            p = sigmoid(study.logits)
            padded = np.pad(p, ((1, 1), (0, 0)), mode="edge")
            return logit(share * p + (1 - share) / 2 * (padded[:-2] + padded[2:]))

        return score


class GaussianSmoothing:
    """Probabilities averaged along z under a Gaussian in millimetres.

    Source: the baseline of ``evaluate`` (:mod:`rsna_seq.scoring.smoothing`), here with four widths.
    """

    name = "gaussian smoothing"
    settings: tuple[Any, ...] = (5.0, 2.5, 8.0, 15.0)

    def fit(
        self, setting: Any, train: list[EmbeddedStudy], budget: SequenceConfig, seed: int, device: str
    ) -> Scorer:
        """Nothing is learnt but the width, which is picked outside."""

        def score(study: EmbeddedStudy) -> Floats:
            return logit(smooth_along_z(sigmoid(study.logits), study.z_mm, float(setting)))

        return score
