"""Batches of slabs: their order, threads that read ahead, studies in memory."""

import threading
from pathlib import Path

import pytest
import torch
from builders import tiny_cache
from hypothesis import given
from hypothesis import strategies as st

from rsna_seq.nets.data import SlabDataset, batches_of, read_ahead, read_studies, shuffled_batches
from rsna_seq.store.pixel_cache import PixelCache


@given(st.lists(st.integers(), max_size=40), st.integers(0, 12))
def test_reading_ahead_is_map(items: list[int], threads: int) -> None:
    assert list(read_ahead(lambda i: i + 1, items, threads)) == [i + 1 for i in items]


@pytest.mark.parametrize("threads", [0, 3])
def test_an_error_comes_in_its_place(threads: int) -> None:
    results = read_ahead(lambda i: 6 // i, [3, 2, 0, 1], threads)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_consumer_that_stops_leaves_no_thread_and_little_was_read() -> None:
    before, read = threading.active_count(), []
    results = read_ahead(read.append, range(1000), 3)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert len(read) <= 4


def test_threads_change_no_batch_and_an_epoch_has_each_slab_once(tmp_path: Path) -> None:
    cache = PixelCache(tiny_cache(tmp_path / "2_cache"))
    data = SlabDataset(cache, cache.slabs, 1, 5.0)
    epochs = [list(shuffled_batches(data, 4, seed=1, epoch=2, workers=workers)) for workers in (0, 3)]
    for (hu, labels), (same_hu, same_labels) in zip(*epochs, strict=True):
        assert hu.dtype == torch.int16
        assert torch.equal(hu, same_hu)
        assert torch.equal(labels, same_labels)
    assert len(epochs[0]) == batches_of(len(data), 4)
    assert sum(len(hu) for hu, _ in epochs[0]) == len(data)
    other = next(iter(shuffled_batches(data, 4, seed=1, epoch=3)))
    assert not torch.equal(other[0], epochs[0][0][0])


def test_studies_come_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    cache = PixelCache(tiny_cache(tmp_path / "2_cache"))
    asked = cache.studies[::-1]
    assert [volume.study for volume in read_studies(cache, asked, torch.device("cpu"))] == asked
