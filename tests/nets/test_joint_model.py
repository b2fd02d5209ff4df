"""The joint network: equal to its CNN at the start, to itself in chunks, and to itself in any batch."""

import pytest
import torch
from torch import Tensor

from rsna_seq.config import EmbedConfig, JointConfig
from rsna_seq.nets.cnn import Embedder
from rsna_seq.nets.joint_model import JointModel

EMBED = EmbedConfig(backbone="test_efficientnet", pretrained=False, dropout=0)
LENGTHS = (5, 1, 3)


def _model(*, trained: bool = False, dropout: float = 0.0) -> JointModel:
    torch.manual_seed(0)
    cfg = JointConfig(projection_dim=8, hidden=8, dropout=dropout)
    model = JointModel(cfg, Embedder(EMBED.model_copy(update={"dropout": dropout})))
    if trained:
        torch.nn.init.normal_(model.correct.weight)
        torch.nn.init.normal_(model.mix, std=0.01)
    return model


def _studies(*lengths: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hu = torch.randint(-50, 100, (sum(lengths), 3, 32, 32), generator=generator).float()
    places = [torch.rand(n, generator=generator).mul(8).add(1).cumsum(0) for n in lengths]
    z_mm = torch.nn.utils.rnn.pad_sequence([p - p[0] for p in places], batch_first=True)
    return hu, z_mm, torch.tensor(lengths)


def test_before_training_it_equals_its_cnn() -> None:
    model, (hu, z_mm, lengths) = _model().eval(), _studies(*LENGTHS)
    refined, logits = model(hu, z_mm, lengths)
    torch.testing.assert_close(refined, model.embedder(hu)[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, model.embedder(hu)[1])


def test_a_study_does_not_depend_on_its_batch() -> None:
    model, (hu, z_mm, lengths) = _model(trained=True).eval(), _studies(*LENGTHS)
    together = model(hu, z_mm, lengths)[0].split(list(LENGTHS))
    for i, part in enumerate(hu.split(list(LENGTHS))):
        n = LENGTHS[i]
        alone = model(part, z_mm[i : i + 1, :n], lengths[i : i + 1])[0]
        torch.testing.assert_close(together[i], alone, atol=1e-4, rtol=1e-4)


def test_every_slice_of_a_study_changes_the_logits_of_every_other() -> None:
    model, (hu, z_mm, lengths) = _model(trained=True).eval(), _studies(6)
    before = model(hu, z_mm, lengths)[0]
    hu[5] += 40
    assert (model(hu, z_mm, lengths)[0] - before).abs().amax(1).gt(1e-5).all()


@pytest.mark.parametrize("chunk", [1, 4, 9, 64])
def test_chunks_with_checkpointing_give_the_same_gradients(chunk: int) -> None:
    gradients = []
    for size in (None, chunk):
        model, (hu, z_mm, lengths) = _model(trained=True), _studies(*LENGTHS)
        model.train()
        refined, logits = model(hu, z_mm, lengths, size)
        (refined.square().mean() + logits.square().mean()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_a_frozen_cnn_is_neither_trained_nor_noisy() -> None:
    model, (hu, z_mm, lengths) = _model(trained=True, dropout=0.5), _studies(*LENGTHS)
    model.freeze(True)
    model.train()
    expected = model.embedder.eval()(hu)[1]
    model.train()
    refined, logits = model(hu, z_mm, lengths)
    torch.testing.assert_close(logits, expected)
    refined.sum().backward()
    assert all(p.grad is None for p in model.embedder.parameters())
    assert model.project.weight.grad is not None
    model.freeze(False)
    assert all(p.requires_grad for p in model.parameters())


def test_training_leaves_the_statistics_of_batch_norm_as_they_are() -> None:
    model, (hu, z_mm, lengths) = _model(), _studies(*LENGTHS)
    before = {name: b.clone() for name, b in model.named_buffers()}
    assert any(name.endswith("running_mean") for name in before)
    model.train()
    model(hu, z_mm, lengths)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    assert model.embedder.drop.training
