"""Compressed input that needs too much memory or time: the other slices are read."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydicom import dcmread
from transfer_syntaxes import SYNTAXES, write_encoded

from rsna_seq.imaging.decoder import Decoder, shared_decoder
from rsna_seq.imaging.pixels import read_hu
from rsna_seq.reasons import ExclusionError, Reason

Cli = Callable[..., tuple[int, str]]
SIZE = "cache.size=32"


def _bombs(folder: Path, study: str, count: int, side: int = 8192) -> None:
    """Small JPEG 2000 files whose headers declare large frames."""
    path = write_encoded(folder, f"{study}_0000", SYNTAXES["jpeg_2000"], study=study, z=1000.0)
    dataset = dcmread(path)
    dataset.Rows = dataset.Columns = side
    dataset.save_as(path, enforce_file_format=True)
    template = path.read_bytes()
    for i in range(count):
        mine = template.replace(f"{study}_0000".encode(), f"{study}_{i:04d}".encode())
        (folder / f"{study}_{i:04d}.dcm").write_bytes(mine.replace(b"1000.0", f"{1000 + i}.0".encode()))


def _good(folder: Path, count: int = 3, **about: object) -> None:
    for k in range(count):
        write_encoded(folder, f"ID_good{k}", SYNTAXES["jpeg_2000"], study="ID_good", z=5.0 * k, **about)


def test_files_that_declare_37_gib_are_quarantined_and_the_good_study_is_read(
    tmp_path: Path, cli: Cli
) -> None:
    _good(tmp_path / "data")
    _bombs(tmp_path / "data", "ID_bomb", 300)
    _bombs(tmp_path / "data", "ID_good", 20)  # and some within the good study
    words = ["--out", tmp_path / "run", f"data.root={tmp_path / 'data'}", SIZE]
    assert cli("index", *words)[0] == 0
    code, printed = cli("cache", *words)
    assert code == 0, printed
    assert "320 quarantined: the file is too small for the rows and columns" in printed
    slabs = pl.read_parquet(tmp_path / "run" / "2_cache" / "slabs.parquet")
    assert slabs["slices"].explode().to_list() == [f"ID_good{k}" for k in range(3)]
    lost = pl.read_parquet(tmp_path / "run" / "2_cache" / "quarantine.parquet")
    assert set(lost["reason"]) == {str(Reason.FRAME_IMPLAUSIBLE)}
    assert lost["file"].n_unique() == 320
    code, printed = cli("png", tmp_path / "data", "--out", tmp_path / "png")
    assert (code, "3 images" in printed) == (0, True), printed


def test_one_such_file_is_refused_by_the_library(tmp_path: Path) -> None:
    _bombs(tmp_path, "ID_bomb", 1)
    header = {
        **{"rows": 8192, "columns": 8192, "file_size": (tmp_path / "ID_bomb_0000.dcm").stat().st_size},
        "transfer_syntax": str(SYNTAXES["jpeg_2000"]),
    }
    with pytest.raises(ExclusionError) as error:
        read_hu(tmp_path / "ID_bomb_0000.dcm", header)
    assert error.value.reason == Reason.FRAME_IMPLAUSIBLE


@pytest.mark.parametrize("command", ["cache", "png"])
def test_an_input_that_is_lost_to_timeouts_is_the_machines_fault(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    noise = np.random.default_rng(0).integers(-1000, 1000, (512, 512))
    _good(tmp_path / "data", hu=noise, count=1)
    words = ["--out", tmp_path / "run", f"data.root={tmp_path / 'data'}", SIZE, "workers=1"]
    assert cli("index", *words)[0] == 0
    monkeypatch.setattr(shared_decoder(), "patience_s", 1e-6)
    code, printed = cli(
        *(["cache", *words] if command == "cache" else ["png", tmp_path / "data", "--out", tmp_path / "png"])
    )
    assert code == 5, printed
    assert "run the same command again" in printed
    monkeypatch.undo()


def test_a_damaged_member_and_a_file_that_is_gone_are_named_as_such(tmp_path: Path) -> None:
    archive, slice_ = tmp_path / "studies.zip", write_encoded(tmp_path, "ID_1", SYNTAXES["jpeg_2000"])
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(slice_, "slice.dcm")
    expected = {
        f"{archive}!/slice.dcm": {Reason.BAD_ARCHIVE, Reason.BAD_MEMBER},
        f"{archive}!/other.dcm": {Reason.FILE_CHANGED},
        str(tmp_path / "gone.dcm"): {Reason.UNREADABLE_FILE},
    }
    decoder = Decoder()
    values = decoder.decode(str(slice_), 0, (64, 64))
    np.testing.assert_array_equal(decoder.decode(f"{archive}!/slice.dcm", 0, (64, 64)), values)
    good = archive.read_bytes()
    archive.write_bytes(good[:400] + bytes(byte ^ 0xFF for byte in good[400:700]) + good[700:])
    for path, reasons in expected.items():
        with pytest.raises(ExclusionError) as error:
            decoder.decode(path, 0, (64, 64))
        assert error.value.reason in reasons, path
    decoder.close()


def test_a_script_without_a_guard_decodes(tmp_path: Path) -> None:
    _good(tmp_path / "data")
    script = tmp_path / "script.py"
    script.write_text(
        "from rsna_seq.config import IndexConfig\n"
        "from rsna_seq.imaging.pixels import read_hu\n"
        "from rsna_seq.stages import index\n"
        "print('begin')\n"
        f"scan = index.scan(index.Path({str(tmp_path / 'data')!r}), IndexConfig())\n"
        "print([int(read_hu(scan.root / row['file'], row).max()) for row in scan.slices.to_dicts()])\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["begin", "[900, 900, 900]"]
