"""Multiple-instance loss and mixed batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from weak_run import weak_cache

from rsna_seq.config import EmbedConfig
from rsna_seq.nets.cnn import weighted_bce
from rsna_seq.nets.data import SlabDataset
from rsna_seq.nets.weak import (
    MixedBatch,
    MixedBatches,
    Pool,
    partial_bce,
    sequence_loss,
    split_mixed,
    study_loss,
)
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.study_labels import ONE_OF, UNKNOWN

EPIDURAL = 0


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).requires_grad_()


def test_with_all_labels_the_loss_is_that_of_the_competition() -> None:
    z, y = logits(7, 6), torch.randint(0, 2, (7, 6), generator=torch.Generator().manual_seed(2)).float()
    assert partial_bce(z, y).item() == pytest.approx(weighted_bce(z, y).item(), rel=1e-6)
    padded_z, mask = z[None], torch.ones(1, 7, dtype=torch.bool)
    assert sequence_loss(padded_z, y[None], mask, "max", 4.0).item() == pytest.approx(
        weighted_bce(z, y).item(), rel=1e-6
    )


def test_an_unknown_class_has_no_gradient() -> None:
    z, y = logits(3, 6), torch.zeros(3, 6)
    y[1, 2], y[2] = UNKNOWN, ONE_OF
    partial_bce(z, y).backward()
    assert z.grad is not None
    assert (z.grad != 0).tolist() == [[True] * 6, [True, True, False, True, True, True], [False] * 6]


@pytest.mark.parametrize("pool", ["max", "attention"])
def test_the_loss_of_a_study_reaches_only_the_slabs_that_may_have_the_class(pool: Pool) -> None:
    z, y = logits(2, 4, 6), torch.zeros(2, 4, 6)
    y[0, :3, EPIDURAL] = ONE_OF
    y[0, 3] = UNKNOWN
    loss = study_loss(z, y, pool)
    assert loss[1] == 0
    loss.sum().backward()
    assert z.grad is not None
    reached = torch.nonzero(z.grad).tolist()
    best = int(z[0, :3, EPIDURAL].argmax())
    assert reached == ([[0, best, 0]] if pool == "max" else [[0, k, 0] for k in range(3)])
    z[0, :3, EPIDURAL].data.fill_(30.0)
    assert study_loss(z, y, pool)[0] < 1e-6, "one positive slab is enough"


def test_attention_lies_between_the_mean_and_the_largest_logit() -> None:
    z, y = torch.zeros(1, 3, 6), torch.full((1, 3, 6), ONE_OF)
    z[0, :, EPIDURAL] = torch.tensor([-4.0, 0.0, 4.0])
    only = torch.full_like(y, UNKNOWN)
    only[..., EPIDURAL] = ONE_OF
    highest, soft = (float(study_loss(z, only, pool)) for pool in ("max", "attention"))
    mean = float(torch.nn.functional.softplus(torch.tensor(0.0)) / 7)
    assert highest < soft < mean


@pytest.mark.parametrize("pool", ["max", "attention"])
def test_labels_of_studies_alone_teach_which_slabs_have_the_class(pool: Pool) -> None:
    random = torch.Generator().manual_seed(0)
    seen = torch.rand(60, 20, generator=random) < 0.1
    seen[::2] = False
    features = torch.randn(60, 20, 8, generator=random)
    features[..., 0] += 3.0 * seen
    labels = torch.zeros(60, 20, 6)
    labels[seen.any(1)] = ONE_OF
    torch.manual_seed(0)  # from about one start in eight the pooled loss settles in another optimum
    net = torch.nn.Linear(8, 6)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        mask = torch.ones(60, 20, dtype=torch.bool)
        sequence_loss(net(features), labels, mask, pool, 20.0).backward()
        optimizer.step()
    answer = net(features)[..., EPIDURAL]
    area = (answer[seen][:, None] > answer[~seen][None]).float().mean()
    assert area > 0.95


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> MixedBatches:
    cache = PixelCache(weak_cache(tmp_path_factory.mktemp("run") / "2_cache"))
    cfg = EmbedConfig(batch_size=8, study_slices=4)
    return MixedBatches(SlabDataset(cache, cache.slabs, 1, 5.0), cache.slabs["study"].to_numpy(), cfg)


def epoch(batches: MixedBatches, number: int) -> list[MixedBatch]:
    return list(batches.epoch(seed=3, epoch=number, workers=0, pin=False))


def test_an_epoch_has_every_known_slab_and_every_positive_study_once(batches: MixedBatches) -> None:
    made = epoch(batches, 0)
    assert len(made) == batches.steps
    assert sum(b.single for b in made) == len(batches.data.labelled)
    lengths = torch.cat([b.lengths for b in made])
    assert len(lengths) == len(batches.bags) == 4, "of six studies two are negative"
    assert lengths.tolist() == [4] * 4
    for b in made:
        assert ((b.labels[b.single :] == ONE_OF).any(1)).all()
        assert not (b.labels[: b.single] == ONE_OF).all(1).any()
    again, other = epoch(batches, 0), epoch(batches, 1)
    assert all(torch.equal(a.hu, b.hu) for a, b in zip(made, again, strict=True))
    assert any(not torch.equal(a.labels, b.labels) for a, b in zip(made, other, strict=True))


@pytest.mark.parametrize("pieces", [2, 3, 8])
def test_the_pieces_of_a_batch_have_its_loss_and_whole_studies(batches: MixedBatches, pieces: int) -> None:
    batch = next(b for b in epoch(batches, 0) if len(b.lengths))
    z = logits(len(batch.labels), 6).detach()
    parts, at, total = split_mixed(batch, pieces), 0, 0.0
    for part, share in parts:
        total += share * part.loss(z[at : at + len(part.labels)], "max", 2.0).item()
        at += len(part.labels)
        assert len(part.labels) >= 2
    assert at == len(batch.labels)
    assert total == pytest.approx(batch.loss(z, "max", 2.0).item(), rel=1e-5)


def test_few_slabs_of_a_long_study_cover_all_of_it(batches: MixedBatches) -> None:
    members = np.arange(40)
    chosen = batches._some(members, np.random.default_rng(0))
    assert len(chosen) == 4
    assert (np.diff(chosen) == 10).all()


def test_without_any_known_slab_every_step_is_a_study(tmp_path: Path) -> None:
    cache = PixelCache(weak_cache(tmp_path / "2_cache", weak=12))
    positive = cache.slabs.filter(cache.slabs["any"].is_null())
    data = SlabDataset(cache, positive, 1, 5.0)
    data.labels[data.labels >= 0] = UNKNOWN
    mixed = MixedBatches(data, positive["study"].to_numpy(), EmbedConfig(batch_size=8))
    made = epoch(mixed, 0)
    assert [len(b.lengths) for b in made] == [1] * len(mixed.bags)
