"""LightGBM over the probabilities of neighbouring slices alone, one booster per class."""

from typing import Any, NamedTuple

import lightgbm as lgb
import numpy as np

from peers.base import Floats, Scorer, logit, sigmoid
from rsna_seq.config import SequenceConfig
from rsna_seq.labels import N_CLASSES
from rsna_seq.nets.studies import EmbeddedStudy

_REACH = 5
"""Neighbouring slices on each side."""


class BoostSetting(NamedTuple):
    """Size of a booster."""

    rounds: int
    min_leaf: int


class NeighbourBoosting:
    """Boosted trees per class over its probabilities in five slices on each side and all six of the slice.

    Source: appian42/kaggle-rsna-intracranial-hemorrhage, ``src/meta`` (a public 2019 solution that many
    others used). Further features as published: number of slices, position and the study's mean; learning
    rate 0.02, 30 leaves, depth 5, bagging 0.7 every second round, 0.9 of the columns, L1 and L2 of 0.9.
    Changes: 5 neighbours on each side instead of 9; a fixed number of rounds (four settings) instead of early
    stopping on the scored fold; ``min_data_in_leaf`` of 5 as published, or 60.
    """

    name = "lightgbm alone"
    settings: tuple[Any, ...] = (
        BoostSetting(400, 5),
        BoostSetting(200, 60),
        BoostSetting(100, 60),
        BoostSetting(50, 60),
    )

    def fit(
        self, setting: Any, train: list[EmbeddedStudy], budget: SequenceConfig, seed: int, device: str
    ) -> Scorer:
        """Train the boosters; a class with a single label gets its smoothed prevalence.

        Args:
            setting: A :class:`BoostSetting`.
            train: Labelled studies.
            budget: ``seeds`` is the number of averaged boosters per class.
            seed: Seed of bagging and column sampling.
            device: Not used.
        """
        labels = np.concatenate([s.labels for s in train])
        tables = [_features(s) for s in train]
        models = [
            _boost(np.concatenate([t[c] for t in tables]), labels[:, c], setting, budget.seeds, seed)
            for c in range(N_CLASSES)
        ]
        shares = logit((labels.sum(axis=0, dtype=np.float64) + 0.5) / (len(labels) + 1))

        def score(study: EmbeddedStudy) -> Floats:
            answer = np.tile(shares, (len(study), 1))
            for c, (table, boosters) in enumerate(zip(_features(study), models, strict=True)):
                if boosters:
                    answer[:, c] = np.mean([b.predict(table, raw_score=True) for b in boosters], axis=0)
            return answer

        return score


def _boost(table: Floats, labels: Any, setting: BoostSetting, seeds: int, seed: int) -> list[Any]:
    """Train the boosters of one class; none if only one label occurs."""
    if len(np.unique(labels)) < 2:
        return []
    params = {
        "objective": "binary",
        "learning_rate": 0.02,
        "num_leaves": 30,
        "max_depth": 5,
        "min_data_in_leaf": setting.min_leaf,
        "bagging_freq": 2,
        "bagging_fraction": 0.7,
        "feature_fraction": 0.9,
        "lambda_l1": 0.9,
        "lambda_l2": 0.9,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    return [
        lgb.train({**params, "seed": seed + k}, lgb.Dataset(table, labels.copy()), setting.rounds)
        for k in range(seeds)
    ]


def _features(study: EmbeddedStudy) -> list[Floats]:
    """Compute (slab, feature) per class; neighbours beyond the ends of the study are missing values."""
    p, n = sigmoid(study.logits), len(study)
    padded = np.pad(p, ((_REACH, _REACH), (0, 0)), constant_values=np.nan)
    around = [padded[_REACH + k : _REACH + k + n] for k in range(-_REACH, _REACH + 1) if k]
    position = (np.arange(n) + 1) / n
    shared = [p, np.full((n, 1), n), position[:, None]]
    return [
        np.concatenate([*(a[:, c : c + 1] for a in around), *shared, np.full((n, 1), p[:, c].mean())], axis=1)
        for c in range(N_CLASSES)
    ]
