"""What is found below folders: every file is read, or a row says why not, whatever the folder holds."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dicoms import write_slice
from hypothesis import given, settings
from hypothesis import strategies as st

from rsna_seq.config import IndexConfig
from rsna_seq.errors import UsageError
from rsna_seq.imaging.sources import list_files, must_be
from rsna_seq.stages import index


def found(*sources: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """The slices that index reads, and file and reason of all else."""
    scan = index.scan(sources, IndexConfig())
    return scan.slices["slice"].to_list(), scan.quarantine.select("file", "reason").rows()


def set_time(file: Path, year: int) -> None:
    seconds = (year - 1970) * 31_556_952
    os.utime(file, ns=(0, seconds * 10**9))
    if file.stat().st_mtime_ns != seconds * 10**9:
        pytest.skip("this file system does not hold such a time")


def test_a_time_that_no_table_holds_quarantines_its_file(tmp_path: Path) -> None:
    for i, (name, year) in enumerate([("ID_a", 2024), ("ID_old", 1960), ("ID_new", 2300)]):
        set_time(write_slice(tmp_path, name, z=5.0 * i), year)
    assert found(tmp_path) == (["ID_a", "ID_old"], [("ID_new.dcm", "bad_time")])
    assert found(tmp_path / "ID_new.dcm") == ([], [("ID_new.dcm", "bad_time")])
    shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path, "ID_a.dcm")
    set_time(tmp_path / "b.zip", 2300)
    assert ("b.zip", "bad_time") in found(tmp_path)[1]


@pytest.mark.parametrize(("name", "depth", "beyond"), [("d", 1100, False), ("d" * 250, 18, True)])
def test_nested_folders_are_walked_as_deep_as_the_system_goes(
    tmp_path: Path, name: str, depth: int, beyond: bool
) -> None:
    top = tmp_path / "top"
    data = write_slice(top, "ID_a").read_bytes().replace(b"ID_a", b"ID_b")
    deep = os.open(top, os.O_RDONLY)
    try:
        for _ in range(depth):
            os.mkdir(name, dir_fd=deep)
            below = os.open(name, os.O_RDONLY, dir_fd=deep)
            os.close(deep)
            deep = below
        with open(os.open("n.dcm", os.O_CREAT | os.O_WRONLY, dir_fd=deep), "wb") as file:  # noqa: PTH123
            file.write(data)
        slices, aside = found(top)
    finally:
        os.close(deep)
        subprocess.run(["rm", "-rf", str(top)], check=True)  # pytest cannot remove it
    assert slices == (["ID_a"] if beyond else ["ID_a", "ID_b"])
    assert [reason for _, reason in aside] == ["unreadable_file"] * beyond


def test_a_file_and_a_folder_that_vanish_while_they_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slice(tmp_path, "ID_a")
    write_slice(tmp_path, "ID_gone", z=5.0)
    write_slice(tmp_path / "gone", "ID_b", z=10.0)
    (tmp_path / "z.zip").write_bytes(b"PK")
    listed = os.scandir

    class Vanishing:
        def __init__(self, folder: str) -> None:
            self.entries = list(listed(folder))
            for name in ("ID_gone.dcm", "z.zip"):
                (tmp_path / name).unlink(missing_ok=True)
            subprocess.run(["rm", "-rf", str(tmp_path / "gone")], check=True)

        def __enter__(self) -> Iterator["os.DirEntry[str]"]:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Vanishing)
    lost = [(name, "unreadable_file") for name in ("ID_gone.dcm", "gone/", "z.zip")]
    assert found(tmp_path) == (["ID_a"], lost)


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_slice(tmp_path, "ID_a")
    write_slice(tmp_path / "locked", "ID_b", z=5.0)
    listed = os.scandir

    def refuse(folder: str) -> object:  # root may list everything
        if folder.endswith("locked"):
            raise PermissionError(13, "Permission denied", folder)
        return listed(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert found(tmp_path) == (["ID_a"], [("locked/", "unreadable_file")])


def test_every_file_below_a_name_that_no_table_holds_is_accounted_for(tmp_path: Path) -> None:
    data = write_slice(tmp_path, "ID_a").read_bytes()
    for folder in (b"caf\xe9", b"caf\xe9/deep", b"new\nline", "d\u00e9j\u00e0 \ufffd vu\u200d".encode()):
        place = tmp_path / os.fsdecode(folder)
        place.mkdir()
        (place / "x.dcm").write_bytes(data.replace(b"ID_a", b"ID_b"))
    (tmp_path / os.fsdecode(b"caf\xe9") / "y.zip").write_bytes(b"")
    (tmp_path / "bell\x07.dcm").write_bytes(data)
    names = ["bell\\x07.dcm", "caf\\xe9/deep/x.dcm", "caf\\xe9/x.dcm", "caf\\xe9/y.zip", "new\\x0aline/x.dcm"]
    slices, aside = found(tmp_path)
    assert slices == ["ID_a", "ID_b"]
    assert aside == [(name, "bad_name") for name in names]
    assert found(tmp_path / os.fsdecode(b"caf\xe9"))[0] == ["ID_b"]  # itself it needs no name in a table
    several = found(tmp_path / os.fsdecode(b"caf\xe9"), write_slice(tmp_path / "other", "ID_c"))
    assert several[0] == ["ID_c"]
    assert {reason for _, reason in several[1]} == {"bad_name", "bad_archive"}


def test_a_single_file_is_an_input_by_any_name(tmp_path: Path) -> None:
    file = write_slice(tmp_path, "ID_a")
    write_slice(tmp_path, "ID_b", z=5.0)
    (tmp_path / "bare").write_bytes(file.read_bytes())
    (tmp_path / "link.dcm").symlink_to(file)
    for name in ("ID_a.dcm", "bare", "link.dcm"):
        assert found(tmp_path / name) == (["ID_a"], [])
    shutil.make_archive(str(tmp_path / "whole"), "zip", tmp_path, "ID_b.dcm")
    (tmp_path / "whole.zip").rename(tmp_path / "whole.download")
    assert found(tmp_path / "whole.download") == (["ID_b"], [])


@pytest.mark.parametrize("name", ["none", "file/below", "pipe"])
def test_an_input_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"does not exist|neither a folder nor a file"):
        list_files(tmp_path, tmp_path / name)
    with pytest.raises(UsageError, match="no input"):
        list_files()


PLACES = ["", "a", "a/b", "c", "c/link", "a/1.dcm", "c/2.zip", "c/2.dcm", "a/../c", "a/b/3.dcm"]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(PLACES), min_size=1, max_size=5))
def test_several_places_list_each_file_once(
    tmp_path_factory: pytest.TempPathFactory, places: list[str]
) -> None:
    root = tmp_path_factory.mktemp("root")
    for name in ("a/1.dcm", "a/b/3.dcm", "c/2.dcm", "d/4.dcm"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="utf-8")
    shutil.make_archive(str(root / "c" / "2"), "zip", root, "d/4.dcm")
    (root / "c" / "link").symlink_to(root / "a")
    listing = list_files(*(root / place for place in places))
    paths = [os.path.normpath(listing.root / name) for name in listing.names]
    single = [list_files(root / place) for place in places]
    wanted = {os.path.realpath(each.root / name) for each in single for name in each.names}
    assert len(paths) == len(set(paths))
    assert {os.path.realpath(path) for path in paths} == wanted
    for name, size, mtime in zip(listing.names, listing.sizes, listing.mtimes_ns, strict=True):
        must_be(os.path.join(listing.root, name), size, mtime)  # noqa: PTH118
