"""What others put between the slices' logits and the answer, as one tuple of peers.

Every peer reads the same out-of-fold embeddings, learns on the same crossed folds, and picks one of at most
four settings on studies that it will not be scored on (:func:`peers.base.cross`).
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
"""From the simplest to the most elaborate."""

__all__ = ["CONV", "LSTM", "PEERS", "TRANSFORMER", "Answer", "Peer", "Scorer", "cross"]
