"""Batches of whole studies: every study once, consistent augmentation, pieces that add up to the batch."""

import numpy as np
import polars as pl
import pytest
import torch
from builders import tiny_cache
from hypothesis import given
from hypothesis import strategies as st

from rsna_seq.config import EmbedConfig
from rsna_seq.nets.whole_studies import StudyBatch, StudyBatches, finest_split, split_studies
from rsna_seq.store.pixel_cache import PixelCache

CFG = EmbedConfig(depth_flip=0.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> PixelCache:
    return PixelCache(tiny_cache(tmp_path_factory.mktemp("run") / "2_cache"))


def _batches(cache: PixelCache, batch: int, cfg: EmbedConfig = CFG, epoch: int = 0) -> list[StudyBatch]:
    return list(StudyBatches(cache, cache.slabs, cfg).epoch(batch, seed=3, epoch=epoch))


def test_every_study_is_read_once_and_the_order_repeats_with_the_seed(cache: PixelCache) -> None:
    batches = _batches(cache, 3)
    assert [len(b.lengths) for b in batches] == [3, 3, 2]
    first = {study.hu[0].tobytes(): study for study in cache}
    seen = []
    for batch in batches:
        for hu in batch.hu.split(batch.lengths.tolist()):
            study = first[hu[0, 1].numpy().tobytes()]
            np.testing.assert_array_equal(hu[:, 1].numpy(), study.hu)
            seen.append(study.study)
    assert sorted(seen) == sorted(cache.studies)
    assert seen != cache.studies
    for a, b in zip(batches, _batches(cache, 3), strict=True):
        assert torch.equal(a.hu, b.hu)
        assert torch.equal(a.draws.theta, b.draws.theta)
    assert not torch.equal(batches[0].draws.theta, _batches(cache, 3, epoch=1)[0].draws.theta)


def test_a_study_that_is_reversed_has_its_labels_and_positions_reversed(cache: PixelCache) -> None:
    uneven = cache.slabs.with_columns(z_mm=pl.col("z_mm") + 0.4 * (pl.col("slab") % 2))
    plain, turned = (
        next(StudyBatches(cache, uneven, CFG.model_copy(update={"depth_flip": p})).epoch(1, seed=3, epoch=0))
        for p in (0.0, 1.0)
    )
    assert turned.draws.depth.all()
    assert torch.equal(turned.labels, plain.labels.flip(0))
    assert torch.equal(turned.hu, plain.hu.flip(0))  # `augment` reverses the neighbours
    torch.testing.assert_close(turned.z_mm[0].diff(), plain.z_mm[0].diff().flip(0))
    assert turned.z_mm[0, 0] == 0


def test_the_slices_of_a_study_are_augmented_alike_but_for_what_is_erased(cache: PixelCache) -> None:
    cfg = EmbedConfig(depth_flip=0.5, erase=1.0, hu_noise=5.0)
    for batch in _batches(cache, 4, cfg):
        for name in ("theta", "depth", "gain", "offset", "noise"):
            for values in getattr(batch.draws, name).split(batch.lengths.tolist()):
                assert torch.equal(values, values[:1].expand_as(values)), name
        assert len(batch.draws.gain.unique()) == len(batch.lengths)
        assert len(batch.draws.box.unique(dim=0)) == len(batch.hu)


@given(pieces=st.integers(1, 64), chunk=st.none() | st.integers(1, 9))
def test_pieces_add_up_to_the_batch_and_get_smaller(
    cache: PixelCache, pieces: int, chunk: int | None
) -> None:
    batch = next(StudyBatches(cache, cache.slabs, CFG).epoch(5, seed=3, epoch=0, chunk=chunk))
    parts = split_studies(batch, pieces)
    assert sum(share for _, share in parts) == pytest.approx(1)
    assert torch.equal(torch.cat([p.hu for p, _ in parts]), batch.hu)
    assert torch.equal(torch.cat([p.labels for p, _ in parts]), batch.labels)
    assert torch.equal(torch.cat([p.lengths for p, _ in parts]), batch.lengths)
    for part, _ in parts:
        assert len(part.hu) == int(part.lengths.sum()) == len(part.draws.theta)
        assert part.z_mm.shape == (len(part.lengths), int(part.lengths.max()))
        limits = [c for c in (chunk, -(-len(part.hu) // -(-pieces // 5)) if pieces > 5 else None) if c]
        assert part.chunk == min(limits, default=None)
    assert len(parts) <= max(pieces, 5)


def test_the_finest_split_puts_every_slice_into_a_chunk_of_its_own(cache: PixelCache) -> None:
    (batch,) = _batches(cache, 8)
    assert {part.chunk for part, _ in split_studies(batch, finest_split(batch))} == {1}
