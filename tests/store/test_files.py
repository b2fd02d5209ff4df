"""A file is complete or absent, follows the umask, and a full disk is named in plain words."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import small_files

from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.store.array_file import array_writer
from rsna_seq.store.files import atomic_path, disk_fault, remove_parts, write_bytes, write_text

WRITERS = {
    "bytes": "from rsna_seq.store.files import write_bytes\nwrite_bytes(out / 'f', bytes(100_000))",
    "table": "import polars as pl, numpy as np\nfrom rsna_seq.store.tables import write_table\n"
    "t = pl.DataFrame({'x': np.random.default_rng(0).random(50_000)})\nwrite_table(t, out / 'f', t.schema)",
    "csv": "import polars as pl, numpy as np\nfrom rsna_seq.datasets.rsna2019.submission import write_csv\n"
    "write_csv(pl.DataFrame({'x': np.random.default_rng(0).random(50_000)}), out / 'f')",
    "array": "import numpy as np\nfrom rsna_seq.store.array_file import array_writer\n"
    "with array_writer(out / 'f', '<i2', (64, 64)) as a:\n    a.append(np.zeros((50, 64, 64)))",
}


def test_a_file_is_complete_or_absent(tmp_path: Path) -> None:
    def half() -> None:
        with atomic_path(tmp_path / "file.txt") as path:
            path.write_text("half", encoding="utf-8")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        half()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_of_a_file_follows_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a", "text")
        with atomic_path(tmp_path / "b") as path:
            pl.DataFrame({"x": [1]}).write_parquet(path)
        with array_writer(tmp_path / "c", np.int16, (2,)) as array:
            array.append(np.zeros((3, 2)))
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_an_environment_fault_whatever_library_writes(tmp_path: Path, kind: str) -> None:
    code = (
        "import pathlib, sys\nfrom rsna_seq.errors import EnvironmentFaultError\n"
        f"out = pathlib.Path({str(tmp_path)!r})\n"
        "try:\n    exec(sys.argv[1])\nexcept EnvironmentFaultError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, WRITERS[kind]],
        capture_output=True,
        text=True,
        preexec_fn=small_files(10_000),
        check=True,
    )
    assert "could not be written" in done.stdout, done.stderr
    assert "bytes and" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(EnvironmentFaultError, match="100 bytes are needed"):
        write_bytes(tmp_path / "f", bytes(100))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        PermissionError(errno.EACCES, "Permission denied"),
        RuntimeError("ComputeError: No space left on device (os error 28)"),
    ],
)
def test_the_errors_of_a_disk_are_told_from_others(tmp_path: Path, error: Exception) -> None:
    assert disk_fault(error, tmp_path / "f", 7) is not None
    assert disk_fault(ValueError("(os error 2)"), tmp_path / "f") is None


def test_parts_of_own_files_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".a.txt.12.part", ".b.txt.12.part", "a.txt", ".a.txt.12.part.bak"):
        (tmp_path / name).touch()
    (tmp_path / ".a.txt.13.part").symlink_to(tmp_path / "a.txt")
    remove_parts(tmp_path, {"a.txt"})
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".a.txt.12.part.bak", ".a.txt.13.part", ".b.txt.12.part", "a.txt"]


def test_an_array_that_is_written_row_by_row_is_numpys_own(tmp_path: Path) -> None:
    rows = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
    with array_writer(tmp_path / "a.npy", np.float32, (2, 2), rows=6) as array:
        array.append(rows[:4])
        array.append(rows[4:])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), rows)
    with array_writer(tmp_path / "empty.npy", "<i2", (3,)):
        pass
    assert np.load(tmp_path / "empty.npy").shape == (0, 3)
