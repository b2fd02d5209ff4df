"""The laws of foreign input, held on every corpus that ``make foreign`` installed.

No file is lost, no traceback, no hang, memory is bounded, the fast and the slow header reader agree, and HU
equal pydicom's wherever both read a slice.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from corpora import CORPORA, Corpus, folder_of

from rsna_seq.imaging.sources import list_files
from rsna_seq.store.tables import QUARANTINE, SLICES, read_table

pytestmark = pytest.mark.foreign
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 300
MEMORY_MIB = 2048
"""Resident memory of ``rsna-seq index``, libraries included; some 300 MiB are usual."""
READING_MIB = 512
"""What reading may take beyond the libraries; the largest frame of all corpora takes 40 MiB."""
Record = Callable[[str, Any], None]


@pytest.fixture(params=CORPORA, ids=lambda corpus: corpus.name)
def corpus(request: pytest.FixtureRequest) -> Corpus:
    found: Corpus = request.param
    if folder_of(found) is None:
        pytest.skip(f"{found.name} is not installed; `make foreign` fetches {found.package}")
    return found


def run(words: list[str]) -> tuple[int, str, str, int]:
    """Run a process under a time limit: its exit code, its two outputs, and its peak memory in MiB."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    clocked = [sys.executable, str(Path(__file__).parent / "measured.py"), *words]
    done = subprocess.run(
        clocked, capture_output=True, text=True, env=environment, timeout=PATIENCE_S, check=False
    )
    *lines, last = done.stderr.splitlines() or [""]
    return done.returncode, done.stdout, "\n".join(lines), int(last.removeprefix("peak_mib="))


def test_index_accounts_for_every_file(corpus: Corpus, tmp_path: Path, record_property: Record) -> None:
    folder = folder_of(corpus)
    assert folder is not None
    words = ["-m", "rsna_seq", "index", "--out", str(tmp_path), f"data.root={folder}", "workers=1"]
    code, printed, told, peak = run(words)
    assert code in {0, 3, 4}, told[-3000:]
    assert "Traceback" not in printed + told
    assert peak < MEMORY_MIB
    listing = list_files(folder)
    files = {*listing.names, *(str(row["file"]) for row in listing.aside)}
    assert list(tmp_path.rglob("quarantine.parquet")), f"exit {code} leaves no quarantine.parquet"
    reasons, told_of = _tables(tmp_path)
    assert told_of == files
    record_property("corpus", [corpus.name, "index", {"code": code, "files": len(files), "reasons": reasons}])


def _tables(out: Path) -> tuple[dict[str, int], set[str]]:
    """How many files have which reason, and the files that the tables of an index name."""
    quarantine = pl.concat([read_table(path, QUARANTINE) for path in out.rglob("quarantine.parquet")])
    slices = pl.concat(
        [
            pl.Series("file", [], pl.String),
            *(read_table(p, SLICES)["file"] for p in out.rglob("slices.parquet")),
        ]
    )
    return dict(Counter(quarantine["reason"].to_list())), {*quarantine["file"], *slices}


def test_every_file_alone_is_read_as_pydicom_reads_it(corpus: Corpus, record_property: Record) -> None:
    code, printed, told, _ = run([str(Path(__file__).parent / "alone.py"), str(folder_of(corpus))])
    assert code == 0, told[-3000:]
    found = json.loads(printed.splitlines()[-1])
    faults = found.pop("faults")
    record_property("corpus", [corpus.name, "alone", found])
    assert not faults, "\n".join(faults)
    headers = sum(count for reason, count in found["reasons"].items() if not reason.startswith("pixels: "))
    assert found["read"] + headers == found["files"]
    assert found["read"] >= corpus.least, f"CT images that are refused: {found['reasons']}"
    assert found["compared"] == found["equal"]
    assert found["peak_mib"] < READING_MIB
