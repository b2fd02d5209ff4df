"""The shards of the cache: written atomically one by one, and kept as long as they are valid.

A shard is ``shard_0000.npy`` (row, y, x) int16, its slabs in ``shard_0000.parquet``, and ``shard_0000.json``
with the key of its inputs, the digests of both files and its own digest, written last. Labels and folds are
not part of the key: they are joined when the cache is closed, so that new folds need no decoding.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from rsna_seq.config import CacheConfig
from rsna_seq.errors import EnvironmentFaultError, IntegrityError
from rsna_seq.labels import CLASSES
from rsna_seq.store.array_file import array_writer
from rsna_seq.store.files import write_json
from rsna_seq.store.provenance import digest_file
from rsna_seq.store.slabs import DecodedPass, slab_table
from rsna_seq.store.tables import QUARANTINE, SLABS, check, from_rows, read_table, table_digest, write_table

_JOINED = [*CLASSES, "fold", "cross_fold"]
_SPARE_BYTES = 64 << 20
SHARD_FILES = ("npy", "parquet", "json")
"""Suffixes of the files of a shard."""


@dataclass(frozen=True)
class Shard:
    """Passes that are stored in one file.

    Attributes:
        number: Number of the shard, from 0.
        passes: Rows of SLICES, one table per pass.
        key: Digest of everything that the pixels depend on.
    """

    number: int
    passes: list[pl.DataFrame]
    key: str

    @property
    def slices(self) -> int:
        """Total number of slices: the maximum number of rows of the shard."""
        return sum(map(len, self.passes))

    def file(self, folder: Path, kind: str) -> Path:
        """Name of one of the shard's files: npy, parquet or json."""
        return folder / f"shard_{self.number:04d}.{kind}"


@dataclass(frozen=True)
class Filled:
    """Contents of a shard.

    Attributes:
        slabs: SLABS, without labels and folds.
        excluded: QUARANTINE: slices whose pixels could not be read.
        digests: BLAKE3 of its files, by name.
    """

    slabs: pl.DataFrame
    excluded: pl.DataFrame
    digests: dict[str, str]


def shards_of(passes: Iterable[pl.DataFrame], cfg: CacheConfig, source: str) -> list[Shard]:
    """Group passes into shards of about ``cfg.shard_slices`` slices; no pass is split.

    Args:
        passes: Rows of SLICES, one table per pass.
        cfg: How the passes are decoded.
        source: Digest of the code that decodes them.
    """
    lots: list[list[pl.DataFrame]] = [[]]
    for rows in passes:
        if sum(map(len, lots[-1])) >= cfg.shard_slices:
            lots.append([])
        lots[-1].append(rows)
    return [Shard(number, lot, _key(lot, cfg, source)) for number, lot in enumerate(lots) if lot]


def keep_shard(shard: Shard, folder: Path) -> Filled | None:
    """Read the shard from the folder; None if it is absent, damaged, or contains other slices."""
    try:
        seal = json.loads(shard.file(folder, "json").read_text(encoding="utf-8"))
        if seal.pop("digest") != _plain_digest(seal) or seal["key"] != shard.key:
            return None
        if any(digest_file(folder / name) != digest for name, digest in seal["files"].items()):
            return None
        slabs = read_table(shard.file(folder, "parquet"), SLABS)
        excluded = from_rows(seal["excluded"], QUARANTINE)
        return Filled(slabs, excluded, seal["files"] | _digest(shard.file(folder, "json")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IntegrityError):
        return None


def fill_shard(shard: Shard, passes: Iterable[DecodedPass], folder: Path, size: int) -> Filled:
    """Write a shard.

    Args:
        shard: The shard.
        passes: Its passes, decoded in order.
        folder: The folder of the cache.
        size: Rows and columns of a slab.
    """
    done, aside = [], []
    # not synced: the digest in the JSON file detects bytes that were lost in a power failure
    with array_writer(shard.file(folder, "npy"), "<i2", (size, size), rows=1, sync=False) as array:
        for part in passes:
            aside += part.excluded
            if part.hu is not None:
                array.append(part.hu)
                done.append(replace(part, hu=None))
    slabs = slab_table(done, shard.number)
    write_table(slabs, shard.file(folder, "parquet"), SLABS)
    digests = _digest(shard.file(folder, "npy")) | _digest(shard.file(folder, "parquet"))
    seal = {"key": shard.key, "files": digests, "excluded": aside}
    write_json(shard.file(folder, "json"), seal | {"digest": _plain_digest(seal)})
    return Filled(slabs, from_rows(aside, QUARANTINE), digests | _digest(shard.file(folder, "json")))


def with_labels(slabs: pl.DataFrame, slices: pl.DataFrame) -> pl.DataFrame:
    """Join labels and folds to slabs: a slab has a label if any of its slices has it.

    Args:
        slabs: SLABS.
        slices: SLICES.
    """
    said = slabs.select("study", "slab", slice="slices").explode("slice")
    said = said.join(slices.select("slice", *_JOINED), on="slice", how="left", maintain_order="left")
    highest = said.group_by("study", "slab", maintain_order=True).agg(
        *(pl.col(c).max() for c in CLASSES), pl.col("fold", "cross_fold").first()
    )
    joined = slabs.drop(_JOINED).join(highest, on=["study", "slab"], how="left", maintain_order="left")
    return check(joined.select(list(SLABS)), SLABS, "slabs")


def must_fit(shards: Iterable[Shard], size: int, folder: Path) -> None:
    """Check that the disk has room for some shards.

    Args:
        shards: The shards that will be written.
        size: Rows and columns of a slab.
        folder: The folder of the cache.

    Raises:
        EnvironmentFaultError: The disk is too small.
    """
    wanted = sum(shard.slices for shard in shards) * size**2 * 2
    free = shutil.disk_usage(folder).free
    if wanted + _SPARE_BYTES > free:
        raise EnvironmentFaultError(
            f"cache: {wanted / 1e9:,.1f} GB are needed below {folder}, {free / 1e9:,.1f} GB are free; "
            "choose another --out, or a smaller cache.size"
        )


def shared_pixels(slabs: pl.DataFrame) -> int:
    """Number of slices whose pixels also occur under another patient.

    Args:
        slabs: SLABS.
    """
    hashes = slabs.select("patient", hash="hashes").explode("hash").drop_nulls("hash")
    return len(hashes.filter(pl.col("patient").n_unique().over("hash") > 1))


def _key(passes: list[pl.DataFrame], cfg: CacheConfig, source: str) -> str:
    """Digest of everything that the pixels of a shard depend on."""
    rows = table_digest(pl.concat(passes).drop(_JOINED))
    return hashlib.sha256(f"{rows}\n{cfg.model_dump_json()}\n{source}".encode()).hexdigest()


def _plain_digest(value: object) -> str:
    """Digest of plain data, to detect a damaged JSON file."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> dict[str, str]:
    return {path.name: digest_file(path)}
