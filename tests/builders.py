"""Small artefacts for tests, made by code: a cache of tiny heads whose labels can be learned."""

from pathlib import Path

import numpy as np
import polars as pl

from rsna_seq.labels import CLASSES, N_CLASSES
from rsna_seq.store.array_file import array_writer
from rsna_seq.store.artifacts import BuildSummary, Key, load_manifest
from rsna_seq.store.builds import ensure
from rsna_seq.store.files import write_json
from rsna_seq.store.provenance import digest_file
from rsna_seq.store.tables import SLABS, write_table


def tiny_cache(folder: Path, *, studies: int = 8, size: int = 32, folds: int = 2, seed: int = 0) -> Path:
    """A finished ``2_cache``: bright squares in grey discs, one place a class; two studies in three bleed."""
    random = np.random.default_rng(seed)
    rows, pixels = [], []
    for i in range(studies):
        n = int(random.integers(5, 9))
        labels = np.zeros((n, N_CLASSES), dtype=np.int8)
        if i % 3 != 2:
            kind, start = i % (N_CLASSES - 1), int(random.integers(0, n - 3))
            labels[start : start + 3, kind] = labels[start : start + 3, -1] = 1
        pixels.append(_heads(labels, size, random))
        rows += _rows(f"S{i:03d}", labels, start=len(rows), fold=i % folds, cross=(i // folds) % 2)

    def build(out: Path) -> BuildSummary:
        write_array(out / "shard_0000.npy", np.concatenate(pixels))
        write_table(pl.DataFrame(rows, schema=dict(SLABS)), out / "slabs.parquet", SLABS)
        return BuildSummary({"slices": len(rows)}, {})

    ensure(folder, Key("cache", {"seed": seed, "size": size}, {}, "test"), build)
    return folder


def replace_table(table: pl.DataFrame, path: Path, schema: dict[str, pl.DataType]) -> None:
    """Replace a table of a finished artefact as if its stage had written it."""
    write_table(table, path, schema)
    reseal(path.parent)


def reseal(folder: Path, **changes: str) -> None:
    """Give the manifest of a finished artefact the digests of its present files, and other entries."""
    old = load_manifest(folder)
    files = {name: digest_file(folder / name) for name in old.files}
    new = old.model_copy(update={"files": files, **changes}).sealed()
    write_json(folder / "manifest.json", new.model_dump())


def write_array(path: Path, array: np.ndarray) -> None:
    """A ``.npy`` file of an artefact."""
    with array_writer(path, array.dtype, array.shape[1:]) as writer:
        writer.append(array)


def _heads(labels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size - 0.5
    hu = np.where(x**2 + y**2 < 0.2, 30.0, -1000.0) + random.normal(0, 3, (len(labels), size, size))
    for i, kind in zip(*np.nonzero(labels[:, :-1]), strict=True):
        at = 8 + 3 * kind
        hu[i, at : at + 6, at : at + 6] = 75
    return hu.round().astype(np.int16)


def _rows(study: str, labels: np.ndarray, *, start: int, fold: int, cross: int) -> list[dict[str, object]]:
    n = len(labels)
    return [
        {
            "study": study,
            "patient": f"P-{study}",
            "slab": i,
            "z_mm": 5.0 * i,
            "gap_below_mm": 5.0 if i else None,
            "gap_above_mm": 5.0 if i < n - 1 else None,
            "slices": [f"{study}-{i}"],
            "hashes": [],
            "shard": 0,
            "row": start + i,
            "x0": 0,
            "y0": 0,
            "side": 64,
            **{c: int(labels[i, k]) for k, c in enumerate(CLASSES)},
            "fold": fold,
            "cross_fold": cross,
        }
        for i in range(n)
    ]
