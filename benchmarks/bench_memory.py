"""Benchmark of the peak memory of ``index`` and ``cache`` for one and ten times the data."""

import json
import subprocess
import sys
from pathlib import Path

from harness import Bench, Options, Row, main
from phantoms import grow_index, scratch, templates, write_copies

from rsna_seq.config import DataConfig, IndexConfig
from rsna_seq.context import Context
from rsna_seq.stages import index
from rsna_seq.store.run_folder import RunFolder

_TIMES = 10
_GROWTH, _BYTES_A_SLICE = 1.1, 1024.0
_DECODED = 0.1
"""Share of the slices that is used for ``cache``, because complete files are large."""


def measure(options: Options) -> list[Row]:
    """Measure all rows."""
    return [_index(options), _cache(options)]


def _index(options: Options) -> Row:
    """Measure the bytes per additional slice."""
    few, many = options.size, options.size * _TIMES
    with scratch(options.data) as folder:
        studies = templates(options)
        added = []
        for files in (few, many):
            write_copies(studies, files, folder / f"files{files}", hollow=True)
            added.append(_above_base("index", folder / f"files{files}", folder / f"run{files}"))
    grown = (added[1] - added[0]) * 1e6 / (many - few)
    note = f"{added[0]:.0f} MB at {few:,} slices, {added[1]:.0f} MB at {many:,}, without imports"
    return Row("index, memory per slice", "limit", "B", grown, None, _BYTES_A_SLICE, "most", note)


def _cache(options: Options) -> Row:
    """Compare the peak for ten times the studies with the peak for one tenth."""
    few = max(1, round(options.size * _DECODED))
    with scratch(options.data) as folder:
        write_copies(templates(options), few, folder / "files")
        small_run, large_run = RunFolder(folder / "few"), RunFolder(folder / "many")
        index.run(IndexConfig(), Context(data=DataConfig(root=folder / "files")), small_run)
        grow_index(small_run["index"], large_run["index"], few * _TIMES)
        small, large = (_above_base("cache", folder / "files", run.path) for run in (small_run, large_run))
    note = f"{few:,} and {few * _TIMES:,} slices, without imports"
    return Row("cache, peak memory", "a tenth of the studies", "MB", large, small, _GROWTH, "most", note)


def _above_base(stage: str, files: Path, run: Path) -> float:
    """Return the peak memory of a stage minus the memory after its imports, in MB."""
    script = Path(__file__).with_name("memory_child.py")
    command = [sys.executable, str(script), stage, str(files), str(run)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    report = json.loads(done.stdout.splitlines()[-1])
    return float(report["peak"] - report["base"])


if __name__ == "__main__":
    raise SystemExit(main(Bench("memory", "slices", 3400, 136, measure)))
