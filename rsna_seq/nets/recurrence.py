"""Bidirectional GRU of many small networks in one pass, with the weights of ``nn.GRU``.

``nn.GRU`` runs one network at a time, and with 24 hidden units nearly all of its time is the start of small
operations. :func:`run_gru` computes the same function from the same weights, but one time step of all
networks and both directions is one batched matrix product. Under ``torch.vmap`` over networks the network
axis joins the direction axis.

Padding stands at the end of a study. The backward direction reads each study reversed within its own length,
so that in both directions padding comes last and cannot reach a slab.
"""

from typing import Any

import torch
from torch import Tensor, nn

_Saved = tuple[Tensor, Tensor, Tensor, Tensor]


def run_gru(gru: nn.GRU, x: Tensor, lengths: Tensor, drops: Tensor | None = None) -> Tensor:
    """Run a bidirectional GRU over padded studies.

    Args:
        gru: Holds the weights; bidirectional, batch first.
        x: (study, slab, feature), padded at the end.
        lengths: (study,) number of slabs, at least 1, on the device of ``x``.
        drops: (layer - 1, study, slab, 2 * hidden) factors of the dropout between the layers.

    Returns:
        (study, slab, 2 * hidden) states; values at padded positions are undefined.
    """
    at = torch.arange(x.shape[1], device=x.device)[None]
    backward = torch.where(at < lengths[:, None], lengths[:, None] - 1 - at, at)[..., None]
    for layer in range(gru.num_layers):
        if layer and drops is not None:
            x = x * drops[layer - 1]
        w_in, w_state, b_in, b_state = (
            torch.stack([getattr(gru, f"{kind}_l{layer}"), getattr(gru, f"{kind}_l{layer}_reverse")])
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        both = torch.stack([x, x.gather(1, backward.expand_as(x))])
        gates = torch.baddbmm(b_in[:, None], both.flatten(1, 2), w_in.transpose(1, 2))
        states = _Cells.apply(gates.unflatten(1, x.shape[:2]), w_state, b_state)[0]
        x = torch.cat([states[0], states[1].gather(1, backward.expand_as(states[1]))], dim=-1)
    return x


class _Cells(torch.autograd.Function):
    """GRU cells over all time steps, for several independent networks or directions.

    With input gates i and state h (PyTorch's ``nn.GRU``): r, z = sigmoid(i + W h + b), m = W h + b,
    n = tanh(i + r m), h' = n + z (h - n). The backward pass is written out: autograd would record nine
    operations per time step, here all factors that do not depend on later steps are computed in one go.
    """

    @staticmethod
    def forward(gates: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        """Compute the states.

        Args:
            gates: (network, study, slab, 3 * hidden) input part of the gates.
            weight: (network, 3 * hidden, hidden) of the state.
            bias: (network, 3 * hidden) of the state.

        Returns:
            The states (network, study, slab, hidden), and what the backward pass needs, slab first.
        """
        networks, studies, steps, width = gates.shape
        h = width // 3
        gates = gates.permute(2, 0, 1, 3)
        rz = gates[..., : 2 * h] + bias[:, None, : 2 * h]
        new, inner = gates[..., 2 * h :].contiguous(), gates.new_empty(steps, networks, studies, h)
        states = gates.new_zeros(steps + 1, networks, studies, h)
        w_rz, w_new = weight[:, : 2 * h].transpose(1, 2), weight[:, 2 * h :].transpose(1, 2)
        b_new = bias[:, None, 2 * h :].expand(networks, studies, h)
        for t in range(steps):
            both = rz[t].baddbmm_(states[t], w_rz).sigmoid_()
            torch.baddbmm(b_new, states[t], w_new, out=inner[t])
            new[t].addcmul_(both[..., :h], inner[t]).tanh_()
            torch.lerp(new[t], states[t], both[..., h:], out=states[t + 1])
        return states[1:].permute(1, 2, 0, 3).contiguous(), states, rz, new, inner

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the gates of all time steps for the backward pass."""
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[1], *output[1:])

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the gradients of gates, weight and bias from that of the states."""
        weight, states, rz, new, inner = ctx.saved_tensors
        h, before = new.shape[-1], states[:-1]
        r, z = rz[..., :h], rz[..., h:]
        to_new = (1 - z) * (1 - new * new)
        parts = torch.stack([to_new * inner * r * (1 - r), (before - new) * z * (1 - z), to_new * r], dim=-2)
        back = given[0].permute(2, 0, 1, 3).contiguous()
        for t in range(len(parts) - 1, -1, -1):
            parts[t].mul_(back[t].unsqueeze(-2))
            if t:
                back[t - 1] += torch.baddbmm(back[t] * z[t], parts[t].flatten(-2), weight)
        gates = parts.flatten(-2)
        flat = gates.transpose(0, 1).flatten(1, 2)
        d_weight = flat.transpose(1, 2) @ before.transpose(0, 1).flatten(1, 2)
        d_bias = flat.sum(1)
        d_gates = torch.cat([gates[..., : 2 * h], back * to_new], dim=-1)
        return d_gates.permute(1, 2, 0, 3), d_weight, d_bias

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Join the mapped axis with the network axis, so that all are one batched product."""
        n = info.batch_size
        flat = [
            (x.expand(n, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1)
            for x, dim in zip(inputs, in_dims, strict=True)
        ]
        states, *saved = _Cells.apply(*flat)
        split = [s.unflatten(1, (n, -1)) for s in saved]
        return (states.unflatten(0, (n, -1)), *split), (0, *(1 for _ in split))
