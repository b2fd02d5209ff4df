"""Pixels to HU: equal to pydicom's own rescale, corrected, cropped, in order, and checked."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pydicom
import pytest
from dicoms import head, write_set, write_slice
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.pixels import apply_rescale

from rsna_seq.config import CacheConfig, DataConfig, IndexConfig
from rsna_seq.context import Context
from rsna_seq.errors import IntegrityError
from rsna_seq.imaging.head import crop_resize, head_square, slab_numbers
from rsna_seq.imaging.pixels import to_hu
from rsna_seq.parallel import local as workers
from rsna_seq.stages import cache, index
from rsna_seq.store.artifacts import read_manifest
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.run_folder import RunFolder

INDEX = IndexConfig(folds=2, cross_folds=2, holdout=0)
AS_IT_IS = CacheConfig(size=64, crop=False, brain_hu=None)


def read(folder: Path, cfg: CacheConfig = AS_IT_IS) -> cache.Read:
    return cache.apply(index.scan(folder, INDEX).slices, folder, cfg)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (2, -1000), (0.5, -1024.5)])
def test_hu_are_those_of_pydicom(tmp_path: Path, implicit: bool, slope: float, intercept: float) -> None:
    stored = np.random.default_rng(0).integers(0, 3000, (64, 64)).astype("<i2")
    write_slice(
        tmp_path,
        "ID_1",
        implicit=implicit,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        PixelData=stored.tobytes(),
    )
    volume = read(tmp_path).volume
    assert volume is not None
    dataset = pydicom.dcmread(tmp_path / "ID_1.dcm")
    expected = np.clip(np.rint(apply_rescale(dataset.pixel_array, dataset)), -1024, 32767)
    assert np.array_equal(volume.hu[0], expected)


def test_the_twelve_bit_wrap_is_corrected(tmp_path: Path) -> None:
    hu = head(0.0)
    stored = (hu.astype(int) + 4096 * (hu < 0)) % 4096
    wrapped = np.where(hu < 0, (hu + 4096) % 4096, hu).astype("<u2")
    assert (wrapped == stored).all()
    write_slice(
        tmp_path,
        "ID_1",
        PixelData=wrapped.tobytes(),
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=0,
        RescaleIntercept=0,
    )
    found = read(tmp_path)
    assert found.volume is not None
    assert np.array_equal(found.volume.hu[0], hu)
    assert index.scan(tmp_path, INDEX).slices["flags"][0] == "wrap_suspected"


def test_a_study_named_as_a_second_pass_is_not_mixed_with_it(tmp_path: Path) -> None:
    for study, size in (("S", 2), ("S/2", 1), ("S/2/1", 1), ("S/1", 1)):
        for i in range(6 * size):
            second = {"RescaleIntercept": -1000} if i > 5 else {}
            name = f"ID_{study.replace('/', '_')}_{i}"
            write_slice(
                tmp_path / "data", name, study=study, patient=study, z=5.0 * (i % 6) + i // 6, **second
            )
    index.run(INDEX, Context(data=DataConfig(root=tmp_path / "data")), RunFolder(tmp_path))
    cache.run(AS_IT_IS, Context(data=DataConfig(root=tmp_path / "data")), RunFolder(tmp_path))
    cached = PixelCache(tmp_path / "2_cache")
    assert cached.studies == ["S", "S/2", "S/1/1", "S/2/1", "S/2/1/1"]
    assert [len(volume) for volume in cached] == [6] * 5
    assert cached.slabs.group_by("study").agg(pl.col("patient").n_unique())["patient"].max() == 1


def test_padding_and_what_lies_below_air_is_air(tmp_path: Path) -> None:
    hu = head(0.0)
    hu[:4] = -3024
    write_slice(tmp_path, "ID_1", hu=hu, PixelPaddingValue=30 + 1024)
    volume = read(tmp_path).volume
    assert volume is not None
    assert volume.hu.min() == -1024
    assert (volume.hu[0][hu == 30] == -1024).all()


@pytest.mark.parametrize("syntax", ["rle", "jpeg2000", "jpegls"])
def test_compressed_pixels_equal_their_source(tmp_path: Path, syntax: str) -> None:
    from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

    path = write_slice(tmp_path, "ID_1")
    dataset = pydicom.dcmread(path)
    dataset.compress(
        {"rle": RLELossless, "jpeg2000": JPEG2000Lossless, "jpegls": JPEGLSLossless}[syntax],
        generate_instance_uid=False,
    )
    dataset.save_as(path)
    volume = read(tmp_path).volume
    assert volume is not None
    assert np.array_equal(volume.hu[0], head(0.0))


def test_the_crop_is_one_square_around_the_head(tmp_path: Path) -> None:
    hu = np.full((4, 128, 128), -1000, dtype=np.int16)
    hu[:, 60:124, 30:94] = head(0.0)
    hu[:, 126:, :] = 300  # a table
    x, y, side = head_square(hu)
    assert 48 <= side <= 72
    assert abs(x + side / 2 - 62) <= 4
    assert abs(y + side / 2 - 92) <= 4


def test_a_study_without_a_head_keeps_the_whole_image() -> None:
    assert head_square(np.full((2, 64, 48), -1024, dtype=np.int16)) == (0, 0, 64)


def test_resizing_is_by_area(tmp_path: Path) -> None:
    write_slice(tmp_path, "ID_1")
    volume = read(tmp_path, CacheConfig(size=32, crop=False, brain_hu=None)).volume
    assert volume is not None
    assert np.array_equal(
        volume.hu[0], cv2.resize(head(0.0).astype(np.int16), (32, 32), interpolation=cv2.INTER_AREA)
    )


def test_thin_series_become_slabs_that_hold_every_slice_once(tmp_path: Path) -> None:
    for i in range(20):
        write_slice(tmp_path, f"ID_{i:02d}", z=0.625 * i, hu=np.full((64, 64), i))
    found = read(tmp_path)
    assert found.volume is not None
    assert len(found.volume) == 3
    assert found.slabs["slices"].explode().to_list() == [f"ID_{i:02d}" for i in range(20)]
    assert found.volume.hu[:, 0, 0].tolist() == [
        round(np.mean(range(a, b))) for a, b in ((0, 8), (8, 16), (16, 20))
    ]
    assert slab_numbers(np.arange(5) * 2.5, slab_mm=5, thin_mm=2).tolist() == [0, 1, 2, 3, 4]


def test_a_file_cut_after_the_index_costs_one_slice(tmp_path: Path) -> None:
    for i in range(3):
        write_slice(tmp_path, f"ID_{i}", z=5.0 * i)
    slices = index.scan(tmp_path, INDEX).slices
    (tmp_path / "ID_1.dcm").write_bytes((tmp_path / "ID_1.dcm").read_bytes()[:3000])
    found = cache.apply(slices, tmp_path, AS_IT_IS)
    assert [row["reason"] for row in found.excluded] == ["file_changed"]
    assert found.slabs["gap_above_mm"].to_list() == [10.0, None]


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    root = write_set(tmp_path / "data")
    index.run(INDEX, Context(data=DataConfig(root=root)), RunFolder(tmp_path))
    cfg = CacheConfig(size=32, shard_slices=10)
    cache.run(cfg, Context(data=DataConfig(root=root), workers=1), RunFolder(tmp_path))
    return tmp_path


def test_a_study_in_the_cache_is_the_study_applied_alone(cached: Path) -> None:
    pixels = PixelCache(cached / "2_cache")
    assert sorted(pixels.slabs["shard"].unique()) == [0, 1, 2]
    slices = index.scan(cached / "data" / "stage_2_train", INDEX, root=cached / "data").slices
    for study in pixels.studies:
        alone = cache.apply(slices.filter(pl.col("study") == study), cached / "data", CacheConfig(size=32))
        assert alone.volume is not None
        assert np.array_equal(pixels.read(study).hu, alone.volume.hu)
        assert np.array_equal(pixels.read(study).z_mm, alone.volume.z_mm)


def test_each_study_is_shifted_to_the_nominal_brain_mode_and_the_shift_is_recorded(tmp_path: Path) -> None:
    offsets = {"dark": -9, "normal": 0, "bright": 11, "far": 40}
    for study, offset in offsets.items():
        for k in range(6):
            hu = head(5.0 * k) + offset
            write_slice(tmp_path / "d", f"ID_{study}{k}", study=study, patient=study, z=5.0 * k, hu=hu)
    write_slice(tmp_path / "d", "ID_air", study="air", patient="air", hu=np.full((64, 64), -1000))
    root, cfg = tmp_path / "d", CacheConfig(size=64, crop=False, max_hu_shift=15)
    index.run(INDEX, Context(data=DataConfig(root=root)), RunFolder(tmp_path))
    made = cache.run(cfg, Context(data=DataConfig(root=root)), RunFolder(tmp_path))
    assert (made.counts["studies shifted in HU"], made.counts["studies without brain mode"]) == (3, 2)
    pixels, slices = PixelCache(tmp_path / "2_cache"), index.scan(root, INDEX).slices
    plain = cfg.model_copy(update={"brain_hu": None})
    for study, offset in (offsets | {"air": 0}).items():
        (mode,), (shift,) = (pixels.slabs.filter(study=study)[c].unique() for c in ("brain_hu", "hu_shift"))
        raw = cache.apply(slices.filter(study=study), root, plain)
        assert raw.volume is not None
        assert raw.slabs.select("brain_hu", "hu_shift").unique().rows() == [(None, 0)]
        expected = raw.volume.hu.astype(int) + shift
        np.testing.assert_array_equal(pixels.read(study).hu, expected)
        if study in {"air", "far"}:  # 70 HU is no brain
            assert (mode, shift) == (None, 0)
        else:
            assert mode == pytest.approx(32.5 + offset, abs=2)
            assert shift == round(31 - mode)


def test_workers_give_the_same_bytes(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_WORTH_S", 0.0)
    cfg = CacheConfig(size=32, shard_slices=10)
    again = RunFolder(cached.parent / "again")
    shutil.copytree(cached / "1_index", again["index"])
    cache.run(cfg, Context(data=DataConfig(root=cached / "data"), workers=2), again)
    assert read_manifest(again["cache"]).files == read_manifest(cached / "2_cache").files


def test_a_flipped_bit_is_found(cached: Path) -> None:
    shard = cached / "2_cache" / "shard_0000.npy"
    data = bytearray(shard.read_bytes())
    data[500] ^= 1
    shard.write_bytes(data)
    with pytest.raises(IntegrityError, match="shard_0000"):
        read_manifest(cached / "2_cache", verify=True)


def test_every_real_slice_decodes_as_pydicom_does(real: Path) -> None:
    found = index.scan(real / "cq500", INDEX)
    assert len(found.slices) == 60
    assert found.quarantine.is_empty()
    for row in found.slices.iter_rows(named=True):
        from rsna_seq.imaging.pixels import read_hu

        path = real / "cq500" / row["file"]
        dataset = pydicom.dcmread(path)
        expected = apply_rescale(dataset.pixel_array, dataset)
        expected[dataset.pixel_array == dataset.PixelPaddingValue] = -1024
        assert np.array_equal(read_hu(path, row), np.clip(expected, -1024, 32767))


@settings(max_examples=60)
@given(st.data())
def test_the_quick_way_to_hounsfield_units_is_the_slow_one(data: st.DataObject) -> None:
    signed = data.draw(st.booleans())
    low, high = (-32768, 32767) if signed else (0, 65535)
    stored = np.array(
        data.draw(st.lists(st.integers(low, high), min_size=4, max_size=40)),
        dtype=np.int16 if signed else np.uint16,
    )
    intercept = data.draw(st.integers(-32768, 32768))
    padding = data.draw(st.none() | st.sampled_from(stored.tolist()))
    expected = np.clip(stored.astype(np.int64) + intercept, -1024, 32767)
    if padding is not None:
        expected[stored == padding] = -1024
    found = to_hu(stored, slope=1.0, intercept=float(intercept), signed=signed, padding=padding)
    np.testing.assert_array_equal(found, expected)


def test_four_slices_at_a_time_are_resized_as_one_is() -> None:
    hu = np.random.default_rng(0).integers(-1024, 3000, (11, 130, 130)).astype(np.int16)
    for square in ((10, 5, 100), (-20, 90, 100), (0, 0, 130), (0, 2, 96), (30, 30, 40)):
        together = crop_resize(list(hu), square, 48)
        for k in range(11):
            np.testing.assert_array_equal(crop_resize([hu[k]], square, 48)[0], together[k])
