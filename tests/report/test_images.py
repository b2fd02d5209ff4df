"""Images of a page: HU as they are in the files, key images of many, and a form that a browser unpacks."""

import base64
import zlib
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from dicoms import head
from hypothesis import given
from hypothesis import strategies as st
from made import study_files

from rsna_seq.config import IndexConfig
from rsna_seq.report.images import MOST_IMAGES, Images, chosen_images, packed, picture, read_images
from rsna_seq.stages import index


def images_of(folder: Path, size: int = 64, keys: tuple[str, ...] = ()) -> Images | None:
    scan = index.scan([folder], IndexConfig())
    return read_images(scan.slices.sort("z_mm"), scan.root, size, keys)


def test_images_have_the_hu_of_the_files_and_their_order(tmp_path: Path) -> None:
    study_files(tmp_path, "A")
    images = images_of(tmp_path, size=512)
    assert images is not None
    assert images.names == [f"A_{k}" for k in range(6)]
    assert images.z_mm == [0, 5, 10, 15, 20, 25]
    assert images.hu.shape == (6, 64, 64)  # never larger than the files
    for k in range(6):
        brain = head(5.0 * k, bleed=k == 3)
        assert np.median(images.hu[k, 28:36, 24:30]) == np.median(brain[28:36, 24:30])  # no shift of HU
        assert ((abs(images.hu[k] - 70) < 5).sum() > 100) == (k == 3)


def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    study_files(tmp_path, "A", slices=3)
    scan = index.scan([tmp_path], IndexConfig())
    (tmp_path / "A_1.dcm").unlink()
    images = read_images(scan.slices, scan.root, 64, ())
    assert images is not None
    assert images.names == ["A_0", "A_2"]
    for name in images.names:
        (tmp_path / f"{name}.dcm").unlink()
    assert read_images(scan.slices, scan.root, 64, ()) is None


def test_pixels_that_are_not_square_keep_their_proportions(tmp_path: Path) -> None:
    study_files(tmp_path, "A", slices=3, PixelSpacing=[3.0, 2.0])
    images = images_of(tmp_path)
    assert images is not None
    assert images.aspect == 1.5
    data = base64.b64decode(picture(images, 1, "brain").removeprefix("data:image/png;base64,"))
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown.shape == (96, 64)
    assert shown[0, 0] == 0
    assert shown[48, 28] == pytest.approx(255 * 35 / 80, abs=8)  # brain of some 35 HU in the window 0 to 80


def test_the_viewer_gets_every_value_that_a_window_can_show() -> None:
    hu = np.random.default_rng(0).integers(-1024, 4000, (3, 8, 8)).astype(np.int16)
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed(Images([], [], hu, 1.0)))), np.uint8)
    low, high = planes.reshape(2, -1).astype(np.uint16)
    back = (low | high << 8).view(np.int16).reshape(hu.shape)
    assert (back == np.clip(hu, -800, 3071)).all()


@given(st.integers(1, 900), st.data())
def test_a_page_has_the_key_images_of_any_study_with_their_neighbours(n: int, data: st.DataObject) -> None:
    keys = data.draw(st.sets(st.integers(0, n - 1), max_size=6))
    chosen = chosen_images([str(i) for i in range(n)], {str(key) for key in keys})
    assert chosen == sorted(set(chosen))
    assert {0, n - 1} <= set(chosen) <= set(range(n))
    for key in keys:
        assert {max(0, key - 1), key, min(n - 1, key + 1)} <= set(chosen)
    assert len(chosen) <= MOST_IMAGES + 3 * 6
    assert n > MOST_IMAGES or len(chosen) == n


def test_a_series_is_read_as_one_table(tmp_path: Path) -> None:
    study_files(tmp_path, "A", slices=2)
    scan = index.scan([tmp_path], IndexConfig())
    assert scan.numbers.sort("slice").rows() == [("A", "A_0", 2, "RA"), ("A", "A_1", 1, "RA")]
    assert scan.numbers.schema["number"] == pl.Int64
