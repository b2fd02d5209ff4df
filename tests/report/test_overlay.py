"""The drawing of a map over its slice: colour, circle and place."""

import base64

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rsna_seq.report.overlay import overlay

SIDE = 384


def _picture(
    hu: NDArray[np.int16], found: NDArray[np.float32], square: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Red, green and blue of the drawing."""
    head, data = overlay(hu, found, "epidural", square).split(",")
    assert head == "data:image/png;base64"
    raw = np.frombuffer(base64.b64decode(data), np.uint8)
    picture = cv2.imdecode(raw, cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture[..., ::-1], np.uint8)


@pytest.mark.parametrize("square", [(0, 0, 128), (32, 16, 96), (-20, -30, 160)])
def test_colour_and_circle_are_where_the_map_has_its_maximum(square: tuple[int, int, int]) -> None:
    hu = np.full((128, 128), -20, np.int16)
    hu[60, 70] = 180  # a white pixel in the slice, and the map at the same place
    scale = square[2] / 64
    found = np.zeros((64, 64), np.float32)
    y, x = int((60.5 - square[1]) / scale), int((70.5 - square[0]) / scale)
    found[y, x] = 1
    picture = _picture(hu, found, square).astype(int)
    assert picture.shape == (SIDE, SIDE, 3)
    at = round((60.5 - square[1]) / square[2] * SIDE), round((70.5 - square[0]) / square[2] * SIDE)
    near = picture[at[0] - 12 : at[0] + 12, at[1] - 12 : at[1] + 12]
    assert (near[..., 0] - near[..., 2]).max() > 60  # reddish: the colour of the class
    assert near.max() > 150
    ring = picture[at[0] - 22 : at[0] + 23, at[1] - 22 : at[1] + 23].min(axis=2)
    assert (ring > 200).sum() > 30  # the white circle
    away = np.delete(picture, range(max(0, at[0] - 30), at[0] + 30), axis=0)
    assert not away.any()


def test_an_empty_map_leaves_the_slice_as_it_is() -> None:
    hu = np.full((64, 64), 80, np.int16)
    picture = _picture(hu, np.zeros((32, 32), np.float32), (0, 0, 64))
    assert (picture[4:-4, 4:-4] == 128).all()


def test_the_same_map_gives_the_same_bytes() -> None:
    rng = np.random.default_rng(0)
    hu, found = rng.integers(0, 80, (96, 96)).astype(np.int16), rng.random((48, 48), np.float32)
    assert overlay(hu, found, "any", (3, 4, 80)) == overlay(hu, found, "any", (3, 4, 80))
