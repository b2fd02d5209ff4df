"""``png``: windowed images of every slice, whatever its UID says."""

from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from dicoms import head, write_set, write_slice

from rsna_seq.errors import NothingUsableError, UsageError
from rsna_seq.imaging.windows import WINDOWS, apply_window
from rsna_seq.tools import png

BRAIN = (WINDOWS["brain"],)
ALL = tuple(WINDOWS.values())


def test_every_slice_becomes_an_image_in_the_order_of_the_study(tmp_path: Path) -> None:
    for k in (2, 0, 1):
        write_slice(tmp_path / "in", f"ID_{k}", z=5.0 * k)
    assert png.run(tmp_path / "in", tmp_path / "out", windows=BRAIN) == {"written": 3}
    names = [p.relative_to(tmp_path / "out").as_posix() for p in sorted((tmp_path / "out").rglob("*.png"))]
    assert names == ["ID_s1/0000_ID_0.png", "ID_s1/0001_ID_1.png", "ID_s1/0002_ID_2.png"]


def test_three_windows_are_red_green_and_blue_and_one_is_grey(tmp_path: Path) -> None:
    hu = head(0.0, bleed=True)
    write_slice(tmp_path / "in", "ID_a", hu=hu)
    png.run(tmp_path / "in", tmp_path / "rgb", windows=ALL)
    png.run(tmp_path / "in", tmp_path / "grey", windows=BRAIN, size=32)
    image = cv2.imread(str(tmp_path / "rgb" / "ID_s1" / "0000_ID_a.png"), cv2.IMREAD_UNCHANGED)
    assert image.dtype == np.uint8
    for channel, window in zip((2, 1, 0), ALL, strict=True):  # OpenCV reads blue first
        assert np.array_equal(image[..., channel], np.rint(255 * apply_window(hu, *window)))
    grey = cv2.imread(str(tmp_path / "grey" / "ID_s1" / "0000_ID_a.png"), cv2.IMREAD_UNCHANGED)
    assert grey.shape == (32, 32)


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.parametrize("uid", ["../../up", "/etc/x", "..", "a/b", "x" * 300, "ID\\..\\up"])
def test_a_uid_is_never_part_of_a_path(tmp_path: Path, uid: str) -> None:
    path = write_slice(tmp_path / "in", "plain", study=uid)
    slice_ = write_slice(tmp_path / "in", "other", SOPInstanceUID=uid, z=5.0)
    assert path.exists()
    assert slice_.exists()
    png.run(tmp_path / "in", tmp_path / "deep" / "out", windows=BRAIN)
    images = list(tmp_path.rglob("*.png"))
    assert len(images) == 2
    assert all(p.parent.parent == tmp_path / "deep" / "out" for p in images)


def test_exclusions_are_counted(tmp_path: Path) -> None:
    write_slice(tmp_path / "in", "ID_a")
    cut = write_slice(tmp_path / "in", "ID_b", z=5.0)
    cut.write_bytes(cut.read_bytes()[:-100])
    (tmp_path / "in" / "notes.txt").write_text("none of ours", encoding="utf-8")
    counts = png.run(tmp_path / "in", tmp_path / "out", windows=BRAIN)
    assert counts == {"written": 1, "pixels_truncated": 1, "not_dicom": 1}
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingUsableError, match="no readable CT slice"):
        png.run(tmp_path / "empty", tmp_path / "out2", windows=BRAIN)
    with pytest.raises(UsageError, match="does not exist"):
        png.run(tmp_path / "none", tmp_path / "out3", windows=BRAIN)


def test_every_slice_that_is_lost_leaves_its_reason(tmp_path: Path) -> None:
    write_slice(tmp_path / "in", "ID_a", RescaleIntercept=20000)
    with pytest.raises(NothingUsableError, match="1 implausible_hu"):
        png.run(tmp_path / "in", tmp_path / "out", windows=BRAIN)
    assert pl.read_parquet(tmp_path / "out" / "quarantine.parquet")["reason"].to_list() == ["implausible_hu"]
    write_slice(tmp_path / "in", "ID_b", z=5.0)
    assert png.run(tmp_path / "in", tmp_path / "out", windows=BRAIN) == {"written": 1, "implausible_hu": 1}


def test_two_workers_write_what_one_writes(tmp_path: Path) -> None:
    write_set(tmp_path / "in", studies=8, slices=2, test_studies=0)
    for workers in (1, 2):
        png.run(tmp_path / "in", tmp_path / str(workers), windows=ALL, workers=workers)
    one, two = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.png")} for n in "12"
    )
    assert len(one) == 16
    assert one == two
