"""Benchmark of random reads of slices with their neighbours from the cache, against PNG files and zarr."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from harness import Bench, Options, Row, absent, installed, main, race
from numpy.typing import NDArray
from peers import speed_stores as peers
from phantoms import scratch, write_cache

from rsna_seq.nets.data import SlabDataset
from rsna_seq.store.pixel_cache import PixelCache

_BATCH = 32
_STORED = 340
"""Slices in each store."""
_WHAT, _UNIT = "slice with 2 neighbours", "reads/s"


def measure(options: Options) -> list[Row]:
    """Measure all rows."""
    cv2.setNumThreads(1)
    with scratch(options.data) as folder:
        cache = write_cache(options, folder, 40 if options.toy else _STORED)
        return _rows(cache, folder, options)


def _rows(cache: PixelCache, folder: Path, options: Options) -> list[Row]:
    """Check that outputs are equal, then time all contenders."""
    data = SlabDataset(cache, cache.slabs, neighbours=1, spacing_mm=5.0)
    hu = np.array(cache.shard(0))
    paths = peers.write_pngs(hu, folder / "png")
    order = np.random.default_rng(0).integers(0, len(data), (options.size // _BATCH + 1, _BATCH))
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: [data.__getitems__(at) for at in order],
        "PNG": lambda: [peers.read_pngs(paths, data.rows[at]) for at in order],
    }
    ours = data.__getitems__(order[0])[0].numpy()
    assert (peers.read_pngs(paths, data.rows[order[0]]) == peers.shown(ours)).all()
    if installed("zarr"):
        array = peers.write_zarr(hu, folder / "zarr")
        assert (peers.read_zarr(array, data.rows[order[0]]) == ours).all()
        runs["zarr"] = lambda: [peers.read_zarr(array, data.rows[at]) for at in order]
    seconds = race(runs, options, rounds={"zarr": 3, "PNG": 3})
    rate = {name: order.size / s for name, s in seconds.items()}
    return [
        Row(_WHAT, "PNG, OpenCV", _UNIT, rate["ours"], rate["PNG"], 20.0),
        Row(_WHAT, "zarr 3", _UNIT, rate["ours"], rate["zarr"], 5.0)
        if "zarr" in rate
        else absent(_WHAT, "zarr 3", _UNIT, 5.0),
        Row(_WHAT, "copy in memory", _UNIT, rate["ours"], _copies(hu, data.rows, order, options), rule=None),
    ]


def _copies(
    hu: NDArray[np.int16], rows: NDArray[np.int64], order: NDArray[np.int64], options: Options
) -> float:
    """Measure the same gather from an array in memory, the upper bound of any store."""
    return order.size / race({"copy": lambda: [hu[rows[at]] for at in order]}, options)["copy"]


if __name__ == "__main__":
    raise SystemExit(main(Bench("read", "reads", 1000, 64, measure)))
