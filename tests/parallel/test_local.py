"""Worker processes: the same results as in one process, from any script; no item is lost to another."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "corpus"))
import sleeper
from dicoms import write_set
from transfer_syntaxes import SYNTAXES, write_encoded

from rsna_seq.config import CacheConfig, DataConfig, IndexConfig
from rsna_seq.context import Context
from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.parallel import local as workers
from rsna_seq.parallel.local import WorkerDied, parallel_map
from rsna_seq.stages import cache, index
from rsna_seq.store.provenance import digest_file
from rsna_seq.store.run_folder import RunFolder

HERE = Path(__file__).resolve().parents[1]
_SCRIPT = """
import sys
import sleeper
from rsna_seq.parallel.local import WorkerDied, parallel_map
print("begin")
done = parallel_map(sleeper.die_at_three, range(6), 2, apart=True)
print([None if isinstance(each, WorkerDied) else each for each in done])
"""


def test_a_script_without_a_guard_may_start_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT, encoding="utf-8")
    path = os.pathsep.join([str(HERE.parent), str(HERE / "corpus")])
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["begin", "[0, 2, 4, None, 8, 10]"]


def test_other_processes_of_the_caller_still_know_its_script() -> None:
    told = workers.spawn.get_preparation_data("a process")
    list(parallel_map(sleeper.die_at_three, [1], 1, apart=True))
    assert workers.spawn.get_preparation_data("a process").keys() == told.keys()


def test_a_worker_that_cannot_start_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.spawn, "_python_exe", b"/bin/false")
    with pytest.raises(EnvironmentFaultError, match="no input file is the cause"):
        list(parallel_map(sleeper.die_at_three, [1, 2], 2, apart=True))


def test_items_that_kill_are_the_only_ones_lost() -> None:
    done = list(parallel_map(sleeper.die_at_three, [3, 1, 3, 2, 3], 2, apart=True))
    assert [None if isinstance(each, WorkerDied) else each for each in done] == [None, 2, None, 4, None]


def test_a_pool_and_one_process_write_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_set(tmp_path / "data", studies=3, slices=3, test_studies=0)
    for i, syntax in enumerate(("jpeg_2000", "jpeg_lossless", "rle")):
        for k in range(3):
            write_encoded(
                root / "stage_2_train",
                f"ID_c{i}{k}",
                SYNTAXES[syntax],
                study=f"ID_c{i}",
                patient=f"ID_c{i}",
                z=5.0 * k,
            )
    monkeypatch.setattr(workers, "_WORTH_S", 0.0)
    labelled = IndexConfig(folds=2, cross_folds=2, holdout=0)
    data = DataConfig(root=root)
    digests = []
    for count in (1, 2):
        run, ctx = RunFolder(tmp_path / f"{count}"), Context(data=data, workers=count)
        index.run(labelled, ctx, run)
        cache.run(CacheConfig(size=32, shard_slices=6), ctx, run)
        out = run["cache"]
        assert pl.read_parquet(out / "quarantine.parquet").is_empty()
        files = [p for p in out.iterdir() if p.name not in {"manifest.json", ".lock"}]
        digests.append({p.name: digest_file(p) for p in files})
    assert digests[0] == digests[1]
    assert len([name for name in digests[0] if name.endswith(".npy")]) == 3
