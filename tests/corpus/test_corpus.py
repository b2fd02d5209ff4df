"""Every bad input that is quarantined, through the command line: good studies beside it do not change."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from cases import CASES, Case
from dicoms import head, write_set, write_slice
from ledger import answered
from transfer_syntaxes import by_pydicom

from rsna_seq.imaging.pixels import read_hu
from rsna_seq.imaging.sources import list_files
from rsna_seq.stages import index
from rsna_seq.store.artifacts import read_manifest
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.tables import QUARANTINE, SLICES, STUDIES, read_table

Cli = Callable[..., tuple[int, str]]
CACHE = ["cache.size=32", "workers=1"]


@dataclass(frozen=True)
class Walked:
    """The good studies alone, and with all bad files beside them."""

    root: Path
    alone: Path
    among: Path
    code: int
    printed: str

    def table(self, name: str, schema: dict[str, pl.DataType]) -> pl.DataFrame:
        """A table of the index with the bad files."""
        return read_table(self.among / "1_index" / name, schema)

    def excluded(self, folder: str) -> pl.DataFrame:
        """Rows of quarantine of one folder, by index and cache."""
        stages = [self.among / stage / "quarantine.parquet" for stage in ("1_index", "2_cache")]
        tables = pl.concat([read_table(table, QUARANTINE) for table in stages])
        return tables.filter(pl.col("file").str.starts_with(f"bad/{folder}/"))


def name_of(number: int) -> str:
    """The folder of a case."""
    return f"{number:02d}_{CASES[number].number:02d}"


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Walked:
    place = tmp_path_factory.mktemp("corpus")
    root = place / "root"
    write_set(root / "good", studies=3, test_studies=0)
    (root / "good" / "stage_2_train.csv").unlink()
    (root / "good" / "stage_2_sample_submission.csv").unlink()
    _walk(root, place / "alone")
    for number, case in enumerate(CASES):
        folder = root / "bad" / name_of(number)
        folder.mkdir(parents=True)
        case.build(folder)
    code, printed = _walk(root, place / "among")
    return Walked(root, place / "alone", place / "among", code, printed)


def _walk(root: Path, out: Path) -> tuple[int, str]:
    """Index and cache, as a user does."""
    import subprocess
    import sys

    printed, code = "", 0
    for stage in ("index", "cache"):
        words = [stage, "--strict", "--out", str(out), f"data.root={root}", *CACHE]
        done = subprocess.run(
            [sys.executable, "-m", "rsna_seq", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode in {0, 3}, done.stderr[-3000:]
        printed, code = printed + done.stdout + done.stderr, done.returncode
    return code, printed


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: f"{CASES[n].number}-{CASES[n].title}")
def test_a_bad_input_leaves_its_reason_and_nothing_else(walked: Walked, number: int) -> None:
    case, folder = CASES[number], name_of(number)
    excluded = walked.excluded(folder)
    assert sorted(excluded["reason"]) == sorted(case.reasons)
    assert excluded["file"].is_not_null().all()
    assert set(excluded["action"]) <= {"quarantined", "skipped", "merged"}
    mine = walked.table("slices.parquet", SLICES).filter(pl.col("file").str.starts_with(f"bad/{folder}/"))
    lost = excluded.filter(
        pl.col("slice").is_in(mine["slice"].implode()), pl.col("reason") == "implausible_hu"
    )
    assert len(mine) - len(lost) == case.read
    if case.flags:
        studies = walked.table("studies.parquet", STUDIES)
        flags = studies.filter(pl.col("study").is_in(mine["study"].implode()))["flags"]
        assert all(case.flags in each for each in flags)
    read = f"{case.read} read, {case.flags}".rstrip(", ")
    left = ", ".join(sorted(set(case.reasons))) or read
    answered(case.number, case.title, left, walked.code)


def test_good_studies_come_through_untouched(walked: Walked) -> None:
    good = pl.col("file").str.starts_with("good/")
    alone = read_table(walked.alone / "1_index" / "slices.parquet", SLICES)
    assert walked.table("slices.parquet", SLICES).filter(good).equals(alone.filter(good))
    before, after = PixelCache(walked.alone / "2_cache"), PixelCache(walked.among / "2_cache")
    assert len(before) == 3
    for study in before.studies:
        np.testing.assert_array_equal(before.read(study).hu, after.read(study).hu)


def test_the_end_of_a_command_tells_every_reason(walked: Walked) -> None:
    assert walked.code == 3  # --strict
    reasons = walked.table("quarantine.parquet", QUARANTINE)["reason"].unique()
    assert all(f"({reason})" in walked.printed for reason in reasons)
    assert "contrast agent" in walked.printed
    assert "gaps of" in walked.printed


def _mine(walked: Walked, number: int) -> pl.DataFrame:
    folders = [name_of(i) for i, case in enumerate(CASES) if case.number == number]
    slices = walked.table("slices.parquet", SLICES)
    return slices.filter(pl.col("file").str.contains_any([f"bad/{folder}/" for folder in folders]))


def _hu(walked: Walked, number: int) -> list[np.ndarray]:
    return [read_hu(walked.root / row["file"], row) for row in _mine(walked, number).iter_rows(named=True)]


def test_slices_are_in_order_whatever_tells_it(walked: Walked) -> None:
    for number in (14, 15, 17, 21, 22, 23, 24):
        for _, rows in _mine(walked, number).group_by("study", "pass"):
            assert rows["z_mm"].is_sorted(), number
    gaps = _mine(walked, 21)["gap_below_mm"].drop_nulls()
    np.testing.assert_allclose(gaps.to_numpy(), 5.0, atol=1e-2)


def test_passes_are_kept_apart_or_flagged(walked: Walked) -> None:
    apart = _mine(walked, 17).group_by("study").agg(pl.col("pass").n_unique(), pl.col("gap_below_mm").min())
    assert sorted(apart["pass"]) == [1, 2]
    assert sorted(apart["gap_below_mm"]) == [0.0, 5.0]
    cached = {study.split("/")[0] for study in PixelCache(walked.among / "2_cache").studies if "/2" in study}
    assert len(cached) == 1


def test_the_series_and_its_grounds_are_recorded(walked: Walked) -> None:
    study = _mine(walked, 19)["study"][0]
    row = walked.table("studies.parquet", STUDIES).filter(pl.col("study") == study)
    assert row["grounds"].to_list() == ["soft kernel before bone"]


def test_hounsfield_units_are_right_whatever_the_encoding(walked: Walked) -> None:
    air = np.clip(head(0.0), -1024, None)
    wrapped, genuine = _hu(walked, 29)
    np.testing.assert_array_equal(wrapped, air)
    assert (genuine.min(), genuine.max()) == (0, 3500)
    counts = read_manifest(walked.among / "2_cache").counts
    assert counts["12-bit wraps corrected"] == counts["12-bit wraps suspected only"] == 1
    (padded,) = _hu(walked, 30)
    assert (padded[:8] == -1024).all()
    np.testing.assert_array_equal(padded[8:], air[8:])
    for number in (31, 32, 35, 36):
        for hu in _hu(walked, number):
            np.testing.assert_array_equal(hu[20:40], head(0.0)[20:40] if number != 32 else hu[20:40])
    for frame, hu in enumerate(_hu(walked, 33)):
        np.testing.assert_array_equal(hu, head(5.0 * frame))


def test_every_codec_equals_pydicoms_own_decoding(walked: Walked) -> None:
    syntaxes = set()
    for row in _mine(walked, 34).iter_rows(named=True):
        path = walked.root / row["file"]
        np.testing.assert_array_equal(read_hu(path, row), by_pydicom(path))
        np.testing.assert_array_equal(by_pydicom(path), head(row["z_mm"]))
        syntaxes.add(row["transfer_syntax"])
    assert len(syntaxes) == 6


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_slice(tmp_path, "ID_good")
    forbidden = write_slice(tmp_path, "ID_forbidden", z=5.0)
    forbidden.chmod(0)
    real_open = os.open

    def refuse(path: str, *flags: int) -> int:
        if "forbidden" in str(path):
            raise PermissionError(13, "Permission denied")
        return real_open(path, *flags)

    monkeypatch.setattr(os, "open", refuse)  # root may read everything
    monkeypatch.setattr(
        "rsna_seq.imaging.headers.elements.open_file", lambda path: os.fdopen(refuse(path, os.O_RDONLY), "rb")
    )
    found = index.scan(tmp_path, index.IndexConfig())
    assert found.slices["slice"].to_list() == ["ID_good"]
    assert found.quarantine["reason"].to_list() == ["unreadable_file"]


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    write_slice(tmp_path, "ID_good")
    changing = write_slice(tmp_path, "ID_changing", z=5.0)
    listing = list_files(tmp_path)
    write_slice(tmp_path, "ID_changing", z=500.0)
    os.utime(changing, ns=(1, 1))
    found = index.scan(tmp_path, index.IndexConfig(), listing=listing)
    assert found.slices["slice"].to_list() == ["ID_good"]
    assert found.quarantine["reason"].to_list() == ["file_changed"]
    answered(47, "a file that changes while it is read", "file_changed", 0)


def test_every_number_has_a_case() -> None:
    assert len({case.number for case in CASES} | {39, 40, 41, 47, 48, 49, 50}) == 50
    assert isinstance(CASES[0], Case)
