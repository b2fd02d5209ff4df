"""Two stacked bidirectional LSTMs over embeddings and their differences to both neighbours."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peers.networks import Inputs, NetworkPeer, run_packed
from rsna_seq.labels import N_CLASSES


class DeltaLSTM(nn.Module):
    """Sum of the states of both LSTMs, a ReLU-activated linear map of each, and the embedding twice.

    Source: D. Hanley & D. Larko, 2nd place of the 2019 competition, darraghdog/rsna, ``trainlstmdeltasum``:
    2048 units for vectors of 2048 features, 12 epochs, batches of 4. Changes: 128 units, and a projection of
    the inputs to 128, so that the shapes of the sum match; dropout of whole features of 0.3, their default,
    which was not used for their 20,000 studies; padding is masked. Epochs, batch size and learning rate are
    those of :mod:`peers.networks`.

    Args:
        features: Width of the inputs.
        units: Width of each direction.
        drop: Dropout probability of whole features.
    """

    def __init__(self, features: int, units: int = 128, drop: float = 0.3) -> None:
        super().__init__()
        self.project = nn.Linear(features, units)
        self.drop = nn.Dropout1d(drop)
        self.first = nn.LSTM(3 * units, units, batch_first=True, bidirectional=True)
        self.second = nn.LSTM(2 * units, units, batch_first=True, bidirectional=True)
        self.first_map = nn.Linear(2 * units, 2 * units)
        self.second_map = nn.Linear(2 * units, 2 * units)
        self.classify = nn.Linear(2 * units, N_CLASSES)

    def forward(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Compute the logits (study, slab, 6)."""
        x = self.drop(self.project(inputs.x).transpose(1, 2)).transpose(1, 2)
        step = (x[:, 1:] - x[:, :-1]) * inputs.mask[:, 1:, None]
        edge = torch.zeros_like(x[:, :1])
        deltas = (torch.cat([edge, step], dim=1), torch.cat([-step, edge], dim=1))
        first = run_packed(self.first, torch.cat([x, *deltas], dim=-1), inputs.lengths)
        second = run_packed(self.second, first, inputs.lengths)
        maps = F.relu(self.first_map(first)) + F.relu(self.second_map(second))
        return (self.classify(first + second + maps + torch.cat([x, x], dim=-1)),)


LSTM = NetworkPeer("two LSTMs", DeltaLSTM)
