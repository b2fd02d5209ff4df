"""Peers of the quality benchmark: methods that turn logits of slices into predictions for a study.

All peers read the same out-of-fold embeddings, are trained on the same crossed folds, and select one of at
most four settings on studies that are not used for scoring (:func:`peers.base.cross`).
"""

from peers.base import Answer, Peer, Scorer, cross
from peers.boosting import NeighbourBoosting
from peers.conv import CONV
from peers.lstm import LSTM
from peers.smoothing import GaussianSmoothing, RollingMean
from peers.transformer import TRANSFORMER

PEERS: tuple[Peer, ...] = (
    RollingMean(),
    GaussianSmoothing(),
    NeighbourBoosting(),
    LSTM,
    CONV,
    TRANSFORMER,
)
"""Ordered from the simplest to the most complex."""

__all__ = ["CONV", "LSTM", "PEERS", "TRANSFORMER", "Answer", "Peer", "Scorer", "cross"]
