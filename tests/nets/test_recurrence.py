"""The GRU that runs many networks in one pass, against ``nn.GRU``."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rsna_seq.nets.recurrence import run_gru


def _packed(gru: nn.GRU, x: Tensor, lengths: Tensor) -> Tensor:
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(gru(packed)[0], batch_first=True, total_length=x.shape[1])[0]


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(1, 12), min_size=3, max_size=3), min_size=1, max_size=4),
    layers=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_stacked_networks_give_states_and_gradients_of_each_alone(
    lengths: list[list[int]], layers: int, seed: int
) -> None:
    torch.manual_seed(seed)
    count = len(lengths)
    grus = [nn.GRU(5, 4, layers, batch_first=True, bidirectional=True).double() for _ in range(count)]
    sizes = torch.tensor(lengths)
    x = torch.randn(count, 3, int(sizes.max()), 5, dtype=torch.float64)
    mask = (torch.arange(x.shape[2]) < sizes[..., None])[..., None]
    aim = torch.randn(count, 3, x.shape[2], 8, dtype=torch.float64) * mask
    alone = torch.stack([_packed(*each) for each in zip(grus, x, sizes, strict=True)])
    (alone * aim).sum().backward()

    weights, _ = torch.func.stack_module_state(grus)
    weights = {f"gru.{k}": w.detach().requires_grad_() for k, w in weights.items()}
    holder = _Holder(grus[0])

    def one(own: dict[str, Tensor], part: Tensor, size: Tensor) -> Tensor:
        return torch.func.functional_call(holder, own, (part, size))

    together = torch.vmap(one)(weights, x, sizes)
    torch.testing.assert_close(together * mask, alone.detach() * mask)
    (together * aim).sum().backward()
    for name, weight in weights.items():
        expected = torch.stack([gru.get_parameter(name.removeprefix("gru.")).grad for gru in grus])
        torch.testing.assert_close(weight.grad, expected)


class _Holder(nn.Module):
    """``functional_call`` exchanges the weights of a module for one call."""

    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        self.gru = gru

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return run_gru(self.gru, x, lengths)
