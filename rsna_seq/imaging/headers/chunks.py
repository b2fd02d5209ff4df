"""Headers of the files of a listing, chunk by chunk, in parallel.

1. :func:`rsna_seq.imaging.headers.batch.read_block` reads the typical files of a chunk at once.
2. :func:`rsna_seq.imaging.headers.single.read_headers` reads the others one by one; a file without a header
   gets a row of QUARANTINE.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from rsna_seq.imaging.headers.batch import read_block
from rsna_seq.imaging.headers.fields import COLUMNS, HEADERS
from rsna_seq.imaging.headers.single import read_headers
from rsna_seq.imaging.sources import Listing
from rsna_seq.parallel.local import WorkerDied, parallel_map
from rsna_seq.reasons import ExclusionError, Reason

Rows = list[dict[str, object]]


@dataclass(frozen=True)
class Chunk:
    """Some files of a listing, as a worker gets them.

    Attributes:
        listing: The files.
        assume_hu: Take stored values as HU where there is no rescale.
    """

    listing: Listing
    assume_hu: bool


def read_chunks(chunks: Sequence[Chunk], workers: int) -> Iterator[tuple[int, pl.DataFrame, Rows]]:
    """Read chunk after chunk; where a worker dies, its files are read one by one to find the culprit.

    Args:
        chunks: The files.
        workers: Processes.

    Yields:
        For each chunk, or file of a chunk on which a worker died: the number of files, HEADERS, and rows of
        QUARANTINE of files without a header.
    """
    for chunk, result in zip(chunks, parallel_map(_read, chunks, workers), strict=True):
        if not isinstance(result, WorkerDied):
            yield len(chunk.listing), *result
            continue
        singles = [Chunk(part, chunk.assume_hu) for part in chunk.listing.parts(1)]
        for single, alone in zip(singles, parallel_map(_read, singles, 1, apart=True), strict=True):
            died = ExclusionError(Reason.WORKER_DIED).row(single.listing.names[0])
            nothing = pl.DataFrame(schema=HEADERS)
            yield 1, *((nothing, [died]) if isinstance(alone, WorkerDied) else alone)


def _read(chunk: Chunk) -> tuple[pl.DataFrame, Rows]:
    """Read the headers of some files: a table of HEADERS, and rows of QUARANTINE."""
    listing = chunk.listing
    usual, others = read_block(str(listing.root), listing.names, listing.sizes, listing.mtimes_ns)
    rows: Rows = []
    aside: Rows = []
    for at in others:
        try:
            rows += [header | {"at": at} for header in listing.read(at, read_headers, chunk.assume_hu)]
        except ExclusionError as error:
            aside.append(error.row(listing.names[at]))
    schema = {**COLUMNS, "at": usual.schema["at"]}
    known = [{name: row.get(name) for name in schema} for row in rows]
    table = pl.concat([usual, pl.DataFrame(known, schema=schema, infer_schema_length=None)])
    about = pl.DataFrame(
        {
            "at": pl.Series(range(len(listing)), dtype=usual.schema["at"]),
            "file": pl.Series(listing.names, dtype=pl.String),
            "file_size": pl.Series(np.asarray(listing.sizes, dtype=np.int64)),
            "file_mtime_ns": pl.Series(np.asarray(listing.mtimes_ns, dtype=np.int64)),
        }
    )
    return table.join(about, on="at", maintain_order="left").select(list(HEADERS)), aside
