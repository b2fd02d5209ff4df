"""Archives and label files through the command line: read like folders, quarantined, or refused."""

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from dicoms import write_set, write_slice
from ledger import answered

from rsna_seq.imaging.archives import MARK
from rsna_seq.imaging.pixels import read_hu
from rsna_seq.stages import index

Cli = Callable[..., tuple[int, str]]


def _zipped(path: Path, files: dict[str, bytes], **about: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = about.get("attr", 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return path


def _encrypted(path: Path) -> Path:
    data = bytearray(_zipped(path, {"a.dcm": b"x"}).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    return path


def _huge(path: Path) -> Path:
    """Members that claim a gigabyte each, more than a tebibyte in all."""
    files = {f"{i}.dcm": os.urandom(6 << 20) if i == 0 else b"x" * 50 for i in range(1100)}
    data = bytearray(_zipped(path, files).read_bytes())
    at = data.find(b"PK\1\2")
    while at >= 0:
        struct.pack_into("<I", data, at + 24, 1 << 30)
        at = data.find(b"PK\1\2", at + 46)
    path.write_bytes(data)
    return path


REFUSED: dict[str, tuple[int, Callable[[Path], Path], str]] = {
    "absolute": (39, lambda p: _zipped(p, {"/etc/a.dcm": b"x"}), "is outside the archive"),
    "parent": (39, lambda p: _zipped(p, {"a/../../b.dcm": b"x"}), "is outside the archive"),
    "link": (39, lambda p: _zipped(p, {"a.dcm": b"/etc/passwd"}, attr=0o120777), "is a link"),
    "ratio": (40, lambda p: _zipped(p, {"a.dcm": bytes(64 << 20)}), "inflates from"),
    "many alike": (
        40,
        lambda p: _zipped(p, {f"{i}.dcm": bytes(1 << 20) for i in range(64)}),
        "inflates from",
    ),
    "total": (40, _huge, "bytes in total"),
    "nested": (40, lambda p: _zipped(p, {"inner.zip": b"PK"}), "nested archive"),
    "encrypted": (41, _encrypted, "encrypted"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("alone", [True, False])
def test_an_archive_is_refused_before_anything_is_read(
    cli: Cli, tmp_path: Path, name: str, alone: bool
) -> None:
    number, build, word = REFUSED[name]
    root = tmp_path / "root"
    root.mkdir()
    write_slice(root, "ID_good")
    archive = build(root / "studies.zip")
    code, printed = cli("index", "--out", tmp_path / "run", f"data.root={archive if alone else root}")
    assert code == 6, printed
    assert word in printed
    assert not (tmp_path / "run").exists()
    if alone:
        answered(number, f"zip: {name}", "refused", code)


def test_too_many_members_are_refused(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsna_seq.imaging.archives._MOST_MEMBERS", 20)
    archive = _zipped(tmp_path / "many.zip", {f"{i}": b"x" for i in range(21)})
    code, printed = cli("index", "--out", tmp_path / "run", f"data.root={archive}")
    assert (code, "21 members" in printed) == (6, True)


def test_an_archive_is_read_as_its_folder_would_be(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", studies=2, test_studies=0) / "stage_2_train"
    files = sorted(root.glob("*.dcm"))
    _zipped(tmp_path / "set.zip", {f"deep/{f.name}": f.read_bytes() for f in files} | {"notes.txt": b"hello"})
    folder, archive = (index.scan(p, index.IndexConfig()) for p in (root, tmp_path / "set.zip"))
    assert archive.slices["file"].str.starts_with(f"set.zip{MARK}deep/").all()
    same = pl.exclude("file", "file_mtime_ns")
    assert archive.slices.select(same).equals(folder.slices.select(same))
    assert archive.quarantine["reason"].to_list() == ["not_dicom"]
    for a, b in zip(archive.slices.to_dicts(), folder.slices.to_dicts(), strict=True):
        theirs = read_hu(folder.root / b["file"], b)
        np.testing.assert_array_equal(read_hu(archive.root / a["file"], a), theirs)


def test_a_damaged_archive_is_quarantined(tmp_path: Path) -> None:
    write_slice(tmp_path, "ID_good")
    whole = _zipped(tmp_path / "a.zip", {"a.dcm": b"x" * 1000}).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[:-40])
    found = index.scan(tmp_path, index.IndexConfig())
    assert found.quarantine["reason"].to_list() == ["bad_archive"]
    assert len(found.slices) == 1


def test_labels_that_contradict_each_other_are_refused(cli: Cli, tmp_path: Path) -> None:
    root = write_set(tmp_path / "data")
    csv = root / "stage_2_train.csv"
    lines = csv.read_text(encoding="utf-8").splitlines()
    nobody = [line.replace(lines[1].rsplit("_", 1)[0], "ID_nobody") for line in lines[1:7]]
    csv.write_text("\n".join([*lines, *lines[1:7], *nobody]) + "\n", encoding="utf-8")
    index_ = ["index", "--out", tmp_path / "run", f"data.root={root}", "index.folds=2", "index.cross_folds=2"]
    code, printed = cli(*index_)
    assert (code, "1 labels without a readable slice" in printed) == (0, True), printed
    csv.write_text("\n".join([*lines, lines[1][:-1] + "1"]) + "\n", encoding="utf-8")
    code, printed = cli(*index_, "--rebuild")
    assert (code, "conflicting labels" in printed) == (2, True)
    answered(48, "labels that contradict each other", "refused", code)
