"""Compressed input that asks for too much, or on a machine without time: what is good beside it is read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydicom import dcmread
from transfer_syntaxes import SYNTAXES, write_encoded

from rsna_seq.imaging.decoder import shared_decoder
from rsna_seq.imaging.pixels import read_hu
from rsna_seq.reasons import Reason, SetAsideError

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
    assert "320 quarantined: the file is far too small for the rows and columns" in printed
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
    with pytest.raises(SetAsideError) as error:
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
