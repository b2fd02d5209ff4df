"""A slice without a place among others that have one: interpolated by its number, or quarantined."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicoms import head, write_slice
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread

from rsna_seq.config import IndexConfig
from rsna_seq.stages import index

TILTED = [1.0, 0.0, 0.0, 0.0, 0.951057, 0.309017]


def write(
    folder: Path, odd: dict[int, dict[str, Any]], *, slices: int = 7, step: int = 1, **shared: Any
) -> None:
    """Slices 5 mm apart whose names carry no order; some have elements of their own."""
    for i in range(slices):
        about = {"InstanceNumber": 100 + step * i, **shared, **odd.get(i, {})}
        write_slice(folder, f"ID_{(i * 5) % slices}_{i}", z=5.0 * i, **about)


def scan(folder: Path) -> index.Scan:
    return index.scan(folder, IndexConfig())


def places(found: index.Scan) -> list[tuple[int, float]]:
    """Number of each slice, and its place."""
    return [(int(name[-1]), z) for name, z in found.slices.select("slice", "z_mm").rows()]


@pytest.mark.parametrize("step", [1, -1, 3])
@pytest.mark.parametrize("lacks", ["ImagePositionPatient", "ImageOrientationPatient"])
@pytest.mark.parametrize("tilted", [False, True])
def test_one_slice_without_a_place_lies_between_its_neighbours(
    tmp_path: Path, step: int, lacks: str, tilted: bool
) -> None:
    shared = {"ImageOrientationPatient": TILTED} if tilted else {}
    write(tmp_path, {3: {lacks: None}}, step=step, **shared)
    found = scan(tmp_path)
    apart = 5 * TILTED[4] if tilted else 5.0
    assert [n for n, _ in places(found)] == list(range(7))
    np.testing.assert_allclose(found.slices["gap_below_mm"].drop_nulls(), apart, atol=2e-3)
    assert found.slices["pass"].unique().to_list() == [0]
    word = "interpolated" if lacks == "ImagePositionPatient" else ""
    assert found.slices["flags"].to_list() == ["", "", "", word, "", "", ""]
    assert found.quarantine.is_empty()


@pytest.mark.parametrize("lacking", [{3: {}, 4: {}, 5: {}}, {1: {}, 5: {}}])
def test_several_slices_without_a_place_are_spread_by_number(tmp_path: Path, lacking: dict[int, Any]) -> None:
    write(tmp_path, {i: {"ImagePositionPatient": None} for i in lacking})
    assert places(scan(tmp_path)) == [(i, 5.0 * i) for i in range(7)]


@pytest.mark.parametrize(
    "odd",
    [
        {0: {"ImagePositionPatient": None}},
        {6: {"ImagePositionPatient": None}},
        {3: {"ImagePositionPatient": None, "InstanceNumber": None}},
        {3: {"ImagePositionPatient": None, "InstanceNumber": 102}},
        {3: {"ImagePositionPatient": None}, 1: {"InstanceNumber": 105}, 5: {"InstanceNumber": 101}},
        {3: {"ImagePositionPatient": [1e300, -64, 15], "InstanceNumber": None}},
    ],
    ids=["first", "last", "no number", "number twice", "numbers in no order", "1e300"],
)
def test_a_slice_that_its_number_does_not_place_is_quarantined(tmp_path: Path, odd: dict[int, Any]) -> None:
    write(tmp_path, odd)
    found = scan(tmp_path)
    lost = next(i for i, about in odd.items() if "ImagePositionPatient" in about)
    assert places(found) == [(i, 5.0 * i) for i in range(7) if i != lost]
    assert found.quarantine.select("action", "reason").rows() == [("quarantined", "no_place")]
    assert found.quarantine["slice"][0].endswith(f"_{lost}")


@pytest.mark.parametrize("value", ["1e300", "-1e9", "inf", "nan", "6000"])
@pytest.mark.parametrize("axis", [0, 2])
def test_a_position_beyond_any_scanner_is_as_none(tmp_path: Path, value: str, axis: int) -> None:
    position = ["-64", "-64", "15"]
    position[axis] = value
    write(tmp_path, {3: {"ImagePositionPatient": position}})
    found = scan(tmp_path)
    assert places(found) == [(i, 5.0 * i) for i in range(7)]
    assert found.slices["flags"][3] == "interpolated"


def test_a_location_beyond_any_scanner_is_as_none(tmp_path: Path) -> None:
    write(tmp_path, {3: {"SliceLocation": "1e300"}}, ImagePositionPatient=None, SliceLocation=None)
    found = scan(tmp_path)
    assert [n for n, _ in places(found)] == list(range(7))
    assert found.slices["z_mm"].abs().max() < 1000


def test_a_series_that_rests_on_slice_location_takes_no_number_for_millimetres(tmp_path: Path) -> None:
    odd = {i: {"SliceLocation": 5.0 * i} for i in (0, 1, 2, 4, 5)}
    write(tmp_path, odd, ImagePositionPatient=None)
    found = scan(tmp_path)
    assert places(found) == [(i, 5.0 * i) for i in range(6)]
    assert found.quarantine["reason"].to_list() == ["no_place"]
    assert found.slices["flags"].to_list() == ["no_position"] * 3 + ["interpolated"] + ["no_position"] * 2


def test_one_position_among_slices_without_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, {i: {"ImagePositionPatient": None} for i in range(7) if i != 3})
    found = scan(tmp_path)
    assert places(found) == [(i, 100.0 + i) for i in range(7)]
    assert set(found.slices["flags"]) == {"no_position"}


def write_frames(folder: Path, name: str, places: list[float | None]) -> None:
    """An enhanced multi-frame object with a frame at each place; None has no position."""
    frames = [head(0.0 if z is None else z) for z in places]
    path = write_slice(folder, name, ImagePositionPatient=None, InstanceNumber=None)
    dataset = dcmread(path)
    dataset.NumberOfFrames = len(places)
    dataset.PixelData = (np.stack(frames) + 1024).astype("<i2").tobytes()
    groups = []
    for z in places:
        plane, group = Dataset(), Dataset()
        if z is not None:
            plane.ImagePositionPatient = [-64.0, -64.0, z]
            group.PlanePositionSequence = [plane]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.save_as(path)


def test_a_frame_without_position_is_counted_among_the_frames_of_its_object(tmp_path: Path) -> None:
    write_frames(tmp_path, "ID_low", [15.0, 10.0, None, 0.0])
    write_frames(tmp_path, "ID_high", [20.0, None, 30.0, None])
    found = scan(tmp_path)
    assert found.slices.select("slice", "z_mm").rows() == [
        *(("ID_low#4", 0.0), ("ID_low#3", 5.0), ("ID_low#2", 10.0), ("ID_low#1", 15.0)),
        *(("ID_high#1", 20.0), ("ID_high#2", 25.0), ("ID_high#3", 30.0)),
    ]
    assert found.quarantine.select("slice", "reason").rows() == [("ID_high#4", "no_place")]


def test_a_file_named_as_a_frame_of_another_is_not_taken_for_it(tmp_path: Path) -> None:
    write_frames(tmp_path, "ID_a", [0.0, 5.0])
    write_slice(tmp_path, "ID_a#2", z=10.0)
    found = scan(tmp_path)
    assert found.slices["slice"].to_list() == ["ID_a#1"]
    assert found.quarantine.select("slice", "reason").rows() == [("ID_a#2", "duplicate_uid")] * 2


@settings(max_examples=25)
@given(data=st.data())
def test_places_follow_positions_whatever_is_missing(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("series")
    missing = data.draw(st.sets(st.integers(0, 6), max_size=3))
    write(
        folder, {i: {"ImagePositionPatient": None} for i in missing}, step=data.draw(st.sampled_from([1, -2]))
    )
    found = scan(folder)
    edges = {i for i in missing if set(range(i + 1)) <= missing or set(range(i, 7)) <= missing}
    assert places(found) == [(i, 5.0 * i) for i in range(7) if i not in edges]
    assert {int(name[-1]) for name in found.quarantine["slice"]} == edges
    assert found.slices["flags"].to_list() == [
        "interpolated" if i in missing else "" for i in range(7) if i not in edges
    ]
