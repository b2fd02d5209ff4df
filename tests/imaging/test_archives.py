"""Zip files as input: damaged members, archives that are replaced, and names with ``!/``."""

import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from dicoms import head, write_slice
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import RLELossless

from rsna_seq.config import CacheConfig, IndexConfig
from rsna_seq.errors import IntegrityError
from rsna_seq.imaging.archives import open_member
from rsna_seq.imaging.pixels import read_hu
from rsna_seq.imaging.sources import list_files
from rsna_seq.reasons import ExclusionError
from rsna_seq.stages import cache, index
from rsna_seq.tools import png

METHODS = {"stored": 0, "deflate": 8, "bzip2": 12, "lzma": 14}
GOOD = ["ID_0", "ID_1", "ID_2"]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Three slices of a study by name."""
    folder = tmp_path_factory.mktemp("slices")
    return {name: write_slice(folder, name, z=5.0 * i).read_bytes() for i, name in enumerate(GOOD)}


def write_rle(folder: Path, name: str, z: float) -> Path:
    path = write_slice(folder, name, z=z)
    dataset = dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(path)
    return path


def zipped(path: Path, files: dict[str, bytes], method: int = 8) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def read(source: Path) -> tuple[dict[str, np.ndarray], pl.DataFrame]:
    """What index and cache make of a source: HU by slice, and all that was quarantined by either."""
    scan = index.scan(source, IndexConfig())
    hu, lost = {}, [scan.quarantine]
    for rows in cache.split_by_pass(scan.slices):
        lost.append(
            pl.DataFrame(cache.apply(rows, scan.root, CacheConfig(size=32)).excluded, scan.quarantine.schema)
        )
    aside = pl.concat(lost)
    for row in scan.slices.filter(~pl.col("slice").is_in(aside["slice"].drop_nulls().implode())).to_dicts():
        hu[row["slice"]] = read_hu(os.path.join(scan.root, row["file"]), row)  # noqa: PTH118
    return hu, aside


def central(data: bytes, name: str) -> int:
    """Where the entry of a member begins in the directory of an archive."""
    at = data.index(b"PK\1\2")
    while data[at + 46 : at + 46 + len(name)] != name.encode():
        at = data.index(b"PK\1\2", at + 4)
    return at


def local(data: bytes, name: str) -> int:
    """Where the bytes of a member begin."""
    at = struct.unpack_from("<I", data, central(data, name) + 42)[0]
    names, extra = struct.unpack_from("<HH", data, at + 26)
    return int(at + 30 + names + extra)


def flipped_pixel(data: bytearray) -> None:
    data[local(data, "b.dcm") + 3000] ^= 0x10


def flipped_header(data: bytearray) -> None:
    at = data.index(b"ID_s1", local(data, "b.dcm"))
    data[at + 4] = ord("9")


def broken_stream(data: bytearray) -> None:
    at = local(data, "b.dcm")
    data[at + 40 : at + 80] = bytes(range(40))


def other_crc(data: bytearray) -> None:
    struct.pack_into("<I", data, central(data, "b.dcm") + 16, 7)


def claims(change: int) -> Callable[[bytearray], None]:
    def build(data: bytearray) -> None:
        at = central(data, "b.dcm") + 24
        struct.pack_into("<I", data, at, struct.unpack_from("<I", data, at)[0] + change)

    return build


def reaches_beyond(data: bytearray) -> None:
    struct.pack_into("<I", data, central(data, "b.dcm") + 20, 1 << 28)


def unknown_method(data: bytearray) -> None:
    struct.pack_into("<H", data, central(data, "b.dcm") + 10, 99)


def no_local_header(data: bytearray) -> None:
    at = struct.unpack_from("<I", data, central(data, "b.dcm") + 42)[0]
    data[at : at + 4] = b"????"


DAMAGES = [
    ("stored", flipped_pixel),
    ("stored", flipped_header),
    ("stored", other_crc),
    ("stored", claims(1000)),
    *((method, broken_stream) for method in ("deflate", "bzip2", "lzma")),
    *((method, other_crc) for method in ("deflate", "bzip2", "lzma")),
    ("deflate", claims(1000)),
    ("deflate", claims(-1000)),
    ("lzma", claims(1000)),
    ("deflate", reaches_beyond),
    ("deflate", unknown_method),
    ("deflate", no_local_header),
]


@pytest.mark.parametrize(("method", "damage"), DAMAGES)
def test_a_damaged_member_is_quarantined_and_its_neighbours_are_read(
    tmp_path: Path, slices: dict[str, bytes], method: str, damage: Callable[[bytearray], None]
) -> None:
    files = {f"{name}.dcm": slices[uid] for name, uid in zip("abc", GOOD, strict=True)}
    whole = zipped(tmp_path / "a.zip", files, METHODS[method])
    sound, nothing = read(whole)
    data = bytearray(whole.read_bytes())
    damage(data)
    whole.write_bytes(data)
    hu, aside = read(whole)
    assert sorted(hu) == ["ID_0", "ID_2"]
    assert all(np.array_equal(hu[uid], sound[uid]) for uid in hu)
    assert (len(sound), len(nothing)) == (3, 0)
    assert set(aside["file"]) == {"a.zip!/b.dcm"}
    assert set(aside["reason"]) == {"bad_member"}


def test_a_compressed_slice_whose_checksum_differs_is_never_decoded(tmp_path: Path) -> None:
    files = [write_rle(tmp_path / "in", f"ID_{i}", 5.0 * i) for i in range(2)]
    whole = zipped(tmp_path / "a.zip", {file.name: file.read_bytes() for file in files}, 0)
    data = bytearray(whole.read_bytes())
    data[local(data, "ID_0.dcm") + files[0].stat().st_size - 20] ^= 1
    whole.write_bytes(data)
    hu, aside = read(whole)
    assert list(hu) == ["ID_1"]
    assert aside["reason"].to_list() == ["bad_member"]


@settings(max_examples=30)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), method=st.sampled_from(list(METHODS)))
def test_a_flipped_bit_anywhere_loses_nothing_in_silence(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int, method: str, slices: dict[str, bytes]
) -> None:
    whole = zipped(tmp_path_factory.mktemp("z") / "a.zip", dict(slices), METHODS[method])
    data = bytearray(whole.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    whole.write_bytes(data)
    try:
        hu, aside = read(whole)
    except IntegrityError:
        return  # refused as a whole, with exit 6
    for name, pixels in hu.items():
        np.testing.assert_array_equal(pixels, np.clip(head(5.0 * GOOD.index(name)), -1024, None))
    lost = set(aside["file"])
    assert len(hu) + len(lost) == len(GOOD) or lost == {"a.zip"}


@pytest.mark.parametrize("method", ["bzip2", "lzma"])
def test_no_more_is_inflated_than_a_member_claims(tmp_path: Path, method: str) -> None:
    whole = zipped(tmp_path / "a.zip", {"b.dcm": bytes(24 << 20)}, METHODS[method])
    data = bytearray(whole.read_bytes())
    struct.pack_into("<I", data, central(data, "b.dcm") + 24, 500_000)
    whole.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(ExclusionError):
            open_member(str(whole), "b.dcm")
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()


def test_a_replaced_archive_is_read_and_the_old_one_closed(tmp_path: Path, slices: dict[str, bytes]) -> None:
    place = tmp_path / "a.zip"
    zipped(place, {"a.dcm": slices["ID_0"]})
    before = index.scan(place, IndexConfig())
    for _ in range(20):
        zipped(tmp_path / "new.zip", {"a.dcm": slices["ID_1"].replace(b"ID_1", b"ID_9")}).replace(place)
        assert index.scan(place, IndexConfig()).slices["slice"].to_list() == ["ID_9"]
    with pytest.raises(ExclusionError, match="file_changed"):
        read_hu(tmp_path / "a.zip!" / "a.dcm", before.slices.row(0, named=True))
    held = [str(link.resolve()) for link in Path("/proc/self/fd").iterdir()]
    assert sum(name.startswith(str(tmp_path)) for name in held) <= 1


def test_a_member_that_is_no_longer_what_was_listed_is_not_read(
    tmp_path: Path, slices: dict[str, bytes]
) -> None:
    place = zipped(tmp_path / "a.zip", {"a.dcm": slices["ID_0"], "b.dcm": slices["ID_1"]})
    listing = list_files(place)
    zipped(place, {"a.dcm": slices["ID_2"], "c.dcm": slices["ID_1"]})
    os.utime(place, ns=(1, 1))
    found = index.scan(place, IndexConfig(), listing=listing)
    assert found.slices.is_empty()
    assert found.quarantine["reason"].to_list() == ["file_changed"] * 2


@pytest.mark.parametrize("folder", ["Scans!", "wow!/st", "a.zip!", "!", "!/!"])
def test_an_exclamation_mark_in_a_path_is_a_path(
    tmp_path: Path, slices: dict[str, bytes], folder: str
) -> None:
    place = tmp_path / "data" / folder
    place.mkdir(parents=True)
    (place / "a.dcm").write_bytes(slices["ID_0"])
    write_rle(place, "ID_rle", 5.0)
    zipped(place / "b.zip", {"in!/c.dcm": slices["ID_1"], "plain.dcm": slices["ID_2"]})
    for source in (tmp_path / "data", place):
        hu, aside = read(source)
        assert sorted(hu) == ["ID_0", "ID_1", "ID_2", "ID_rle"]
        assert aside.is_empty()
        np.testing.assert_array_equal(hu["ID_1"], np.clip(head(5.0), -1024, None))


def test_an_archive_beside_a_folder_of_its_marker_is_told_apart(
    tmp_path: Path, slices: dict[str, bytes]
) -> None:
    zipped(tmp_path / "a.zip", {"same.dcm": slices["ID_0"], "other.dcm": slices["ID_1"]})
    (tmp_path / "a.zip!").mkdir()
    (tmp_path / "a.zip!" / "same.dcm").write_bytes(slices["ID_2"])
    hu, aside = read(tmp_path)
    assert sorted(hu) == ["ID_1", "ID_2"]
    np.testing.assert_array_equal(hu["ID_2"], np.clip(head(10.0), -1024, None))
    assert aside.select("file", "reason").rows() == [("a.zip!/same.dcm", "bad_name")]


def test_names_that_a_path_would_tidy_up_are_found(tmp_path: Path, slices: dict[str, bytes]) -> None:
    names = ["a//b.dcm", "./c.dcm", "d/./e.dcm"]
    place = zipped(tmp_path / "a.zip", dict(zip(names, slices.values(), strict=True)))
    counts = png.run(place, tmp_path / "out", windows=((40.0, 80.0),))
    assert counts == {"written": 3}


def test_a_member_with_a_control_character_in_its_name_is_quarantined(
    tmp_path: Path, slices: dict[str, bytes]
) -> None:
    hu, aside = read(zipped(tmp_path / "a.zip", {"a\nb.dcm": slices["ID_0"], "c.dcm": slices["ID_1"]}))
    assert list(hu) == ["ID_1"]
    assert aside.select("file", "reason").rows() == [("a.zip!/a\\x0ab.dcm", "bad_name")]


def test_members_read_like_the_bytes_they_hold(tmp_path: Path) -> None:
    data = bytes(np.random.default_rng(0).integers(0, 255, 1_200_000, dtype=np.uint8))

    for name, method in METHODS.items():
        zipped(tmp_path / f"{name}.zip", {"a": data}, method)
        with open_member(str(tmp_path / f"{name}.zip"), "a") as member:
            assert member.seek(0, os.SEEK_END) == len(data)
            assert member.seek(1_100_000) == 1_100_000
            assert member.read(10) == data[1_100_000:1_100_010]
            assert member.seek(-20, os.SEEK_CUR) == 1_099_990
            assert member.read() == data[1_099_990:]
