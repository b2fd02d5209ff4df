"""Maps of where a class was found: the attribution adds up, the map follows the network."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rsna_seq.config import EmbedConfig
from rsna_seq.nets.cnn import Embedder
from rsna_seq.nets.maps import class_map, integrated_gradients, without_dense

SIDE = 64


def _head() -> np.ndarray:
    """Three slices of a round head with a skull, and a clot on each side; the right one is denser."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    r = np.hypot(x, y)
    hu = np.full((SIDE, SIDE), -1000, np.int16)
    hu[r < 30] = 31
    hu[(r > 24) & (r < 28)] = 1000
    hu[np.hypot(x + 12, y) < 4] = 60
    hu[np.hypot(x - 12, y) < 4] = 75
    return np.stack([hu] * 3)


class OneSide(nn.Module):
    """A network whose first logit is the density of the left half, and whose second is that of the right."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, hu: Tensor) -> tuple[Tensor, Tensor]:
        mean = (hu[:, 1].clamp(0, 100) / 100 * self.weight).mean(1)
        halves = torch.stack([mean[:, : SIDE // 2].mean(1), mean[:, SIDE // 2 :].mean(1)], 1)
        return mean, halves


def test_the_attribution_adds_up_to_the_difference_of_the_logit() -> None:
    torch.manual_seed(0)
    net = Embedder(EmbedConfig(backbone="test_efficientnet", pretrained=False)).eval()
    hu = torch.from_numpy(_head().astype(np.float32))
    start = without_dense(hu)
    share = integrated_gradients(net, hu, start, 2, 64)
    with torch.inference_mode():
        rise = float(net(hu[None])[1][0, 2] - net(start[None])[1][0, 2])
    assert share.shape == hu.shape
    assert abs(rise) > 1e-5
    assert float(share.sum()) == pytest.approx(rise, rel=0.1)
    assert not share[hu == start].any()


def test_the_baseline_changes_dense_tissue_and_neither_brain_nor_bone() -> None:
    hu = torch.tensor([-1000.0, 0.0, 31.0, 36.0, 60.0, 90.0, 140.0, 1500.0])
    assert without_dense(hu).tolist() == [-1000.0, 0.0, 31.0, 36.0, 36.0, 36.0, 140.0, 1500.0]
    assert without_dense(torch.tensor([60.0]), 20.0).tolist() == [25.0]


@pytest.mark.parametrize(("kind", "left"), [(0, True), (1, False)])
def test_the_map_follows_the_network(kind: int, left: bool) -> None:
    nets = [OneSide().eval()] * 2
    found = class_map(nets, _head(), kind)  # type: ignore[arg-type]
    assert found.max() == pytest.approx(1)
    row, column = np.unravel_index(int(found.argmax()), found.shape)
    assert abs(row - SIDE / 2) < 4
    assert abs(column - SIDE / 2 + (12 if left else -12)) < 4
    other = found[:, SIDE // 2 :] if left else found[:, : SIDE // 2]
    assert other.max() < 0.2


def test_a_slice_without_dense_tissue_has_an_empty_map() -> None:
    hu = np.where(_head() > 40, np.where(_head() > 500, 1000, 31), _head()).astype(np.int16)
    found = class_map([OneSide().eval()], hu, 0)  # type: ignore[list-item]
    assert found.shape == (SIDE, SIDE)
    assert not found.any()


def test_the_weights_get_no_gradient() -> None:
    net = OneSide().eval()
    class_map([net], _head(), 0)  # type: ignore[list-item]
    assert net.weight.grad is None
