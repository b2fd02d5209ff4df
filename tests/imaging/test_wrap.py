"""The 12-bit wrap: genuine values stay what they are, and a wrap that the values prove is undone exactly."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from dicoms import write_slice
from hypothesis import given, settings
from hypothesis import strategies as st

from rsna_seq.config import CacheConfig, IndexConfig
from rsna_seq.imaging.pixels import to_hu
from rsna_seq.imaging.wrap import Wrap, judge
from rsna_seq.stages import cache, index

UNSIGNED = {"PixelRepresentation": 0, "BitsStored": 12, "HighBit": 11}


def head(
    seed: int, size: int = 64, *, tissue: bool = True, metal: float = 0.0, floor: int = -1000
) -> np.ndarray:
    """A noisy head in air: scalp of fat, skull, brain, and an implant; (size, size) HU."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = np.hypot(x, y * 0.9) / size
    hu = random.normal(-1000, 8, (size, size))
    if tissue:
        for edge, value in ((0.42, -90), (0.40, 900), (0.35, 32)):
            inside = radius < edge
            hu[inside] = random.normal(value, 6, int(inside.sum()))
    hu[(np.hypot(x - 5, y + 9) / size) < metal] = 3000
    return np.clip(hu.round().astype(int), floor, 3095)


def genuine(kind: str, seed: int) -> np.ndarray:
    """Stored values of 12 bits that never wrapped, (64, 64): the same header may be on all of them."""
    random = np.random.default_rng(seed)
    hu = head(seed, metal=random.uniform(0, 0.2))
    block = np.zeros((64, 64), dtype=bool)
    top, left, high, wide = random.integers(4, 40, 4)
    block[top : top + high, left : left + wide] = True
    values = {
        "air clipped to 0": np.clip(hu, 0, 4095),
        "HU + 1024": np.clip(hu + 1024, 0, 4095),
        "metal of one value": np.where(block, random.integers(3072, 4096), np.clip(hu, 0, 3071)),
        "dense metal": np.where(block, random.integers(3072, 3196, (64, 64)), np.clip(hu + 1024, 0, 3000)),
        "any": random.integers(0, 4096, (64, 64)),
        "dense only": random.integers(3000, 4096, (64, 64)),
    }[kind]
    return values.astype(np.uint16)


KINDS = ["air clipped to 0", "HU + 1024", "metal of one value", "dense metal", "any", "dense only"]


@settings(max_examples=150)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10_000),
    bits=st.integers(12, 16),
    signed=st.booleans(),
    slope=st.sampled_from([1.0, 1.0, 0.5, 2.0, -1.0, 1.3]) | st.floats(0.1, 5),
    intercept=st.sampled_from([0.0, 0.0, -24.0, -50.0, 500.0, -99.5, -1000.0]) | st.floats(-1024, 1024),
)
def test_genuine_values_are_slope_times_stored_plus_intercept(
    kind: str, seed: int, bits: int, signed: bool, slope: float, intercept: float
) -> None:
    stored = genuine(kind, seed)
    if signed:
        stored = stored.astype(np.int16)
    found = to_hu(stored, slope=slope, intercept=intercept, bits_stored=bits, signed=signed)
    expected = np.clip(np.rint(stored.astype(float) * slope + intercept), -1024, 32767)
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=100)
@given(
    seed=st.integers(0, 10_000),
    slope=st.sampled_from([1, 1, 2]),
    intercept=st.sampled_from([0, 0, 1, -24, -50, 500]),
    metal=st.floats(0, 0.05),
    floor=st.sampled_from([-1000, -1024]),
    padded=st.booleans(),
)
def test_a_wrap_that_the_values_prove_is_undone_exactly(
    seed: int, slope: int, intercept: int, metal: float, floor: int, padded: bool
) -> None:
    hu = head(seed, metal=metal, floor=floor)
    hu = -((intercept - hu) // slope) * slope + intercept  # what a slope can tell
    stored = ((hu - intercept) // slope % 4096).astype(np.uint16)
    expected = np.clip(hu, -1024, None)
    if padded:
        stored[:6], expected[:6] = -2000 % 4096, -1024
    padding = -2000 if padded else None
    found = to_hu(stored, slope=slope, intercept=intercept, bits_stored=12, signed=False, padding=padding)
    np.testing.assert_array_equal(found, expected)


def _write(folder: Path, hus: list[np.ndarray], **elements: object) -> None:
    for i, hu in enumerate(hus):
        stored = (hu % 4096).astype("<u2").tobytes()
        about = {**UNSIGNED, "RescaleIntercept": 0, "PixelData": stored, **elements}
        write_slice(folder, f"ID_{i}", z=5.0 * i, hu=hu, **about)


def _read(folder: Path) -> tuple[index.Scan, cache.Read]:
    found = index.scan(folder, IndexConfig())
    return found, cache.apply(found.slices, folder, CacheConfig(size=64, crop=False, brain_hu=None))


def test_a_slice_of_air_alone_follows_its_series(tmp_path: Path) -> None:
    hus = [head(0), head(1), head(2, tissue=False)]
    assert judge((hus[2] % 4096).astype(np.uint16), slope=1, intercept=0) is Wrap.OPEN
    _write(tmp_path, hus)
    found, read = _read(tmp_path)
    assert found.slices["flags"].to_list() == ["wrap_suspected"] * 3
    assert read.volume is not None
    np.testing.assert_array_equal(read.volume.hu, np.stack(hus))
    assert read.slabs["unwrapped"].to_list() == [1, 1, 1]


def test_a_wrap_that_nothing_proves_is_left_and_flagged(tmp_path: Path) -> None:
    clipped = np.clip(head(0, metal=0.1), 0, None)
    clipped[30:36, 30:36] = 3500
    _write(tmp_path, [clipped, clipped])
    found, read = _read(tmp_path)
    assert found.studies["flags"].to_list() == ["wrap_suspected"]
    assert read.volume is not None
    np.testing.assert_array_equal(read.volume.hu[0], clipped)
    assert read.slabs["unwrapped"].to_list() == [0, 0]


def test_what_contradicts_a_wrap_does_not_follow_its_series(tmp_path: Path) -> None:
    clipped = np.clip(head(0), 0, None)
    clipped[30:36, 30:36] = 3500
    _write(tmp_path, [head(1), clipped])
    read = _read(tmp_path)[1]
    assert read.volume is not None
    np.testing.assert_array_equal(read.volume.hu, np.stack([head(1), clipped]))


@pytest.mark.parametrize("intercept", [-1024, -1000])
def test_a_header_with_room_for_air_is_not_suspected(tmp_path: Path, intercept: int) -> None:
    hu = head(0)
    stored = np.clip(hu - intercept, 0, 4095).astype("<u2")
    write_slice(tmp_path, "ID_1", hu=hu, PixelData=stored.tobytes(), RescaleIntercept=intercept, **UNSIGNED)
    found, read = _read(tmp_path)
    assert found.slices["flags"].to_list() == [""]
    assert read.volume is not None
    np.testing.assert_array_equal(read.volume.hu[0], hu)


def test_every_wrap_of_real_anatomy_is_proven(real: Path) -> None:
    slices = index.scan(real / "cranium", IndexConfig()).slices
    wrapped = slices.filter(pl.col("flags").str.contains("wrap_suspected"))
    assert len(wrapped) == 117
    for rows in cache.split_by_pass(wrapped):
        read = cache.apply(rows, real / "cranium", CacheConfig(size=32))
        assert read.slabs["unwrapped"].sum() == len(rows)
