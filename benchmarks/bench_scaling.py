"""Benchmark of ``index`` and ``cache`` with two workers against one.

Each worker imports this script again, so imports are inside the functions.
"""

import shutil
from pathlib import Path

from harness import Bench, Options, Row, main, race

_TARGET = 1.7
_DISTINCT = 680
"""Distinct files, decoded repeatedly, so that all stay in the page cache."""
_ROUNDS = 3
_INDEXED = 10
"""Factor of the number of files for ``index``, which uses one process for fewer files."""


def measure(options: Options) -> list[Row]:
    """Measure all rows."""
    return [_index(options), _cache(options)]


def _index(options: Options) -> Row:
    from phantoms import scratch, templates, write_copies

    from rsna_seq.config import IndexConfig
    from rsna_seq.stages import index

    with scratch(options.data) as folder:
        count = options.size * _INDEXED
        write_copies(templates(options), count, folder / "files", hollow=True)
        tables = [index.scan(folder / "files", IndexConfig(), workers=n).slices for n in (1, 2)]
        assert tables[0].equals(tables[1])
        runs = {
            str(n): lambda n=n: index.scan(folder / "files", IndexConfig(), workers=n)  # type: ignore[misc]
            for n in (1, 2)
        }
        seconds = race(runs, options, rounds={"1": _ROUNDS, "2": _ROUNDS})
    return _row("index, two workers", count, seconds)


def _cache(options: Options) -> Row:
    from phantoms import grow_index, scratch, templates, write_copies

    from rsna_seq.config import CacheConfig, DataConfig, IndexConfig
    from rsna_seq.context import Context
    from rsna_seq.stages import cache, index
    from rsna_seq.store.artifacts import read_manifest
    from rsna_seq.store.run_folder import RunFolder

    with scratch(options.data) as folder:
        files, few, many = folder / "files", RunFolder(folder / "few"), RunFolder(folder / "many")
        out = many["cache"]
        write_copies(templates(options), min(_DISTINCT, options.size), files)
        data = DataConfig(root=files)
        index.run(IndexConfig(), Context(data=data), few)
        grow_index(few["index"], many["index"], options.size)

        def run(workers: int) -> str:
            return cache.run(CacheConfig(), Context(data=data, workers=workers, rebuild=True), many).content

        contents = set()
        for workers in (1, 2):
            contents.add(run(workers))
            slices = read_manifest(out).counts["slices"]
            _remove(out)
        assert len(contents) == 1
        runs = {str(n): lambda n=n: run(n) for n in (1, 2)}  # type: ignore[misc]
        seconds = race(runs, options, before=lambda: _remove(out), rounds={"1": _ROUNDS, "2": _ROUNDS})
    return _row("cache, two workers", slices, seconds)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _row(name: str, files: int, seconds: dict[str, float]) -> Row:
    return Row(name, "one worker", "files/s", files / seconds["2"], files / seconds["1"], _TARGET)


if __name__ == "__main__":
    raise SystemExit(main(Bench("scaling", "files", 20_000, 100, measure, cores=2)))
