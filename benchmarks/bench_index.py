"""Benchmark of ``index``: headers to a table of ordered slices, against other header readers.

The lower bound is reading 8 kB per file.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from harness import Bench, Options, Row, absent, installed, main, race
from peers import speed_headers as peers
from phantoms import scratch, templates, write_copies

from rsna_seq.config import IndexConfig
from rsna_seq.stages import index

_UNIT = "files/s"
_SAME = {
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "patient": "PatientID",
    "photometric": "PhotometricInterpretation",
    "rows": "Rows",
    "columns": "Columns",
    "bits_stored": "BitsStored",
    "signed": "PixelRepresentation",
    "slope": "RescaleSlope",
    "intercept": "RescaleIntercept",
}
_PEERS: tuple[tuple[str, Callable[[Any], Any], float], ...] = (
    ("pydicom", peers.read_pydicom, 10.0),
    ("dicomsdl", peers.read_dicomsdl, 2.5),
    ("fastai", peers.read_fastai, 10.0),
)


def measure(options: Options) -> list[Row]:
    """Measure all rows."""
    with scratch(options.data) as folder:
        files = write_copies(templates(options), options.size, folder / "files", hollow=True)
        return _rows(folder / "files", files, options)


def _rows(folder: Path, files: list[Path], options: Options) -> list[Row]:
    there = [(name, read, target) for name, read, target in _PEERS if installed(name)]
    slices = index.scan(folder, IndexConfig()).slices
    for name, read, _ in there:
        found = read(files)
        assert_same(slices, peers.rows_of_fastai(found) if name == "fastai" else found)
    paths = [str(file) for file in files]
    runs: dict[str, Callable[[], object]] = {"ours": lambda: index.scan(folder, IndexConfig())}
    runs |= {name: lambda read=read: read(files) for name, read, _ in there}  # type: ignore[misc]
    runs["floor"] = lambda: peers.read_first_bytes(paths)
    runs["found"] = lambda: peers.find_first_bytes(str(folder))
    seconds = race(runs, options)
    rate = {name: len(files) / s for name, s in seconds.items()}
    rows = [
        Row("headers, ordered", name, _UNIT, rate["ours"], rate[name], target)
        if name in rate
        else absent("headers, ordered", name, _UNIT, target)
        for name, _, target in _PEERS
    ]
    what, ours = "headers, ordered", rate["ours"]
    return [
        *rows,
        Row(what, "8 kB of each file", _UNIT, ours, rate["floor"], 0.5),
        Row(what, "list, stat, 8 kB of each", _UNIT, ours, rate["found"], rule=None),
    ]


def assert_same(slices: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    """Assert that all slices are found with the same values."""
    assert len(slices) == len(rows)
    ours = {row["slice"]: row for row in slices.iter_rows(named=True)}
    for theirs in rows:
        row = ours[theirs["SOPInstanceUID"]]
        for name, keyword in _SAME.items():
            assert row[name] == theirs[keyword], (name, row[name], theirs[keyword])
        assert [row["row_mm"], row["col_mm"]] == theirs["PixelSpacing"]
        assert row["transfer_syntax"] == theirs.get("TransferSyntaxUID", row["transfer_syntax"])
        o = np.array(theirs["ImageOrientationPatient"])
        normal = np.cross(o[:3], o[3:])
        place = float(np.dot(theirs["ImagePositionPatient"], normal / np.linalg.norm(normal)))
        assert abs(row["z_mm"] - place) < 1e-3


if __name__ == "__main__":
    raise SystemExit(main(Bench("index", "files", 10_000, 68, measure)))
