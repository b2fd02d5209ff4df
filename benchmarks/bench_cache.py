"""Benchmark of ``cache``: 512 x 512 DICOM to a 256 x 256 cache in HU, against other read-resize-save code.

The peers resize the whole image, so the compared rows do not crop either; the last row crops to the head.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
from harness import Bench, Options, Row, absent, installed, main, race
from peers import speed_pixels as peers
from phantoms import plain, scratch, templates, write_copies

from rsna_seq.config import CacheConfig, DataConfig, IndexConfig
from rsna_seq.context import Context
from rsna_seq.imaging.pixels import read_hu
from rsna_seq.stages import cache, index
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.run_folder import RunFolder

_UNIT = "slices/s"
_PEERS: tuple[tuple[str, str, float], ...] = (
    ("naive windowed PNG", "pydicom", 6.0),
    ("pydicom + OpenCV", "pydicom", 2.5),
    ("MONAI", "monai", 5.0),
    ("SimpleITK", "SimpleITK", 5.0),
)
Writer = Callable[[Sequence[Path], Path, int], None]


def measure(options: Options) -> list[Row]:
    """Measure all rows."""
    cv2.setNumThreads(1)
    with scratch(options.data) as folder:
        files = write_copies(plain(templates(options)), options.size, folder / "files")
        index.run(IndexConfig(), Context(data=DataConfig(root=folder / "files")), RunFolder(folder))
        return _rows(folder, files, options)


def _rows(folder: Path, files: list[Path], options: Options) -> list[Row]:
    """Check that outputs are equal, then time all contenders."""
    size = options.matrix // 2
    whole = CacheConfig(size=size, crop=False, thin_mm=0, brain_hu=None)  # as the peers do
    there = {name: _writer(name) for name, package, _ in _PEERS if installed(package)}
    run_stage(whole, folder)
    rows, out = _located(folder), folder / "peer"
    for name, write in there.items():
        write(files, _empty(out), size)
        assert_same_images(rows, folder / "files", out) if "PNG" in name else assert_same(rows, folder, out)
    runs: dict[str, Callable[[], object]] = {"ours": lambda: run_stage(whole, folder)}
    runs |= {name: lambda write=write: write(files, out, size) for name, write in there.items()}  # type: ignore[misc]
    runs["floor"] = _floor(rows, folder, size)
    runs["cropped"] = lambda: run_stage(CacheConfig(size=size), folder)
    seconds = race(
        runs, options, before=lambda: (_empty(out), shutil.rmtree(folder / "2_cache", ignore_errors=True))
    )
    rate = {name: len(files) / s for name, s in seconds.items()}
    what = f"{options.matrix} to {size}, to disk"
    table = [
        Row(what, name, _UNIT, rate["ours"], rate[name], target)
        if name in rate
        else absent(what, name, _UNIT, target)
        for name, _, target in _PEERS
    ]
    floor = Row(what, "read, resize, write", _UNIT, rate["ours"], rate["floor"], 0.6)
    crop = Row("cropped to the head, to disk", "uncropped", _UNIT, rate["cropped"], rate["ours"], rule=None)
    return [*table, floor, crop]


def _floor(rows: pl.DataFrame, folder: Path, size: int) -> Callable[[], None]:
    """Return the lower bound: read the pixels at known offsets, resize and write them."""
    paths = [str(folder / "files" / file) for file in rows["file"]]
    offsets, shape = rows["pixel_offset"].to_list(), (rows["rows"][0], rows["columns"][0])
    return lambda: peers.write_floor(paths, offsets, shape, folder / "peer", size)


def run_stage(cfg: CacheConfig, folder: Path) -> None:
    """Run the whole stage, including tables, digests and manifest."""
    cache.run(cfg, Context(data=DataConfig(root=folder / "files"), rebuild=True), RunFolder(folder))


def _writer(name: str) -> Writer:
    if name == "MONAI":
        return peers.monai_writer()
    if name == "SimpleITK":
        return peers.sitk_writer()
    return peers.write_naive if "PNG" in name else peers.write_pydicom


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _located(folder: Path) -> pl.DataFrame:
    """Return SLICES with the shard and row of the cache for each slice."""
    slabs = PixelCache(folder / "2_cache").slabs.select("shard", "row", slice="slices").explode("slice")
    slices = pl.read_parquet(folder / "1_index" / "slices.parquet").join(slabs, on="slice", how="left")
    assert slices["row"].null_count() == 0
    return slices


def assert_same(rows: pl.DataFrame, folder: Path, out: Path) -> None:
    """Assert that a peer's arrays equal the cache to within 1 HU."""
    pixels = PixelCache(folder / "2_cache")
    for row in rows.iter_rows(named=True):
        theirs = np.load(out / f"{Path(row['file']).stem}.npy")
        assert np.abs(theirs.astype(int) - pixels.shard(row["shard"])[row["row"]]).max() <= 1


def assert_same_images(rows: pl.DataFrame, root: Path, out: Path) -> None:
    """Assert that a peer's PNGs equal the windowed HU of the slices to within one grey level."""
    row: dict[str, Any]
    for row in rows.iter_rows(named=True):
        image = cv2.imread(str(out / f"{Path(row['file']).stem}.png"), cv2.IMREAD_UNCHANGED)
        hu = read_hu(root / row["file"], row).astype(float)
        for channel, (level, width) in enumerate(peers.WINDOWS):
            grey = np.clip((hu - level) / width + 0.5, 0, 1) * 255
            assert np.abs(image[..., channel] - grey).max() <= 1


if __name__ == "__main__":
    raise SystemExit(main(Bench("cache", "slices", 680, 20, measure)))
