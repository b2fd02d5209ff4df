"""The schema of every table on disk, once; a table is checked on write and on read.

A table's rows are in the order in which its stage made them: studies by StudyInstanceUID, slices from the
lowest to the highest along the slice normal.
"""

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.console import say
from rsna_seq.errors import IntegrityError, NothingUsableError
from rsna_seq.labels import CLASSES
from rsna_seq.reasons import Reason, flag_sentences
from rsna_seq.store.artifacts import open_artifact
from rsna_seq.store.files import write_bytes
from rsna_seq.store.run_folder import RunFolder

Schema = Mapping[str, pl.DataType]

_LABELS: dict[str, pl.DataType] = {name: pl.Int8() for name in CLASSES}
_LOGITS: dict[str, pl.DataType] = {name: pl.Float64() for name in CLASSES}
_GAPS: dict[str, pl.DataType] = {
    "z_mm": pl.Float64(),  # position along the slice normal, turned towards +z
    "gap_below_mm": pl.Float64(),  # distance to the slice before; null for the first
    "gap_above_mm": pl.Float64(),  # distance to the slice after; null for the last
}
_FOLDS: dict[str, pl.DataType] = {
    "fold": pl.Int16(),  # fold of embed; -1 is held out; null is without labels
    "cross_fold": pl.Int16(),  # fold of sequence and stack; -1 and null as above
}

SLICES: Schema = {
    "study": pl.String(),  # StudyInstanceUID
    "series": pl.String(),  # SeriesInstanceUID
    "slice": pl.String(),  # SOPInstanceUID; of a frame among others UID#N
    "patient": pl.String(),  # PatientID
    "file": pl.String(),  # relative to the root that was indexed; in an archive studies.zip!/name
    "frame": pl.Int32(),  # frame of a multi-frame object, else 0
    "pass": pl.Int16(),  # sweep over the head, 0 but where two cover the same part
    "order": pl.Int32(),  # 0 is the lowest slice of the study
    **_GAPS,
    "row_mm": pl.Float64(),  # PixelSpacing, between rows
    "col_mm": pl.Float64(),  # PixelSpacing, between columns
    "rows": pl.Int32(),
    "columns": pl.Int32(),
    "slope": pl.Float64(),
    "intercept": pl.Float64(),
    "bits_stored": pl.Int16(),
    "signed": pl.Boolean(),
    "photometric": pl.String(),
    "padding": pl.Int32(),  # PixelPaddingValue; null where absent
    "transfer_syntax": pl.String(),
    "pixel_offset": pl.Int64(),  # first byte of uncompressed pixels; null where they must be decoded
    "file_size": pl.Int64(),
    "file_mtime_ns": pl.Int64(),
    "flags": pl.String(),  # comma-separated words (geometry.flag): no_position, overlap, gap, ...
    **_LABELS,  # null without labels
    **_FOLDS,
}
"""``1_index/slices.parquet``: one row a slice that is read."""

STUDIES: Schema = {
    "study": pl.String(),
    "patient": pl.String(),
    "series": pl.String(),
    "slices": pl.Int32(),
    "spacing_mm": pl.Float64(),  # median distance of neighbours; null for one slice
    "tilt_deg": pl.Float64(),  # gantry tilt: angle between the slice normal and z
    "passes": pl.Int16(),  # sweeps over the same part of the head, kept apart or flagged as overlap
    "largest_gap_mm": pl.Float64(),
    "gaps": pl.Int32(),  # gaps nearly twice the spacing or wider
    "grounds": pl.String(),  # why this series was chosen
    "flags": pl.String(),
    **_LABELS,  # a class is 1 where any slice has it
    **_FOLDS,
}
"""``1_index/studies.parquet``: one row a study."""

QUARANTINE: Schema = {
    "file": pl.String(),
    "action": pl.String(),  # rsna_seq.reasons.Action
    "reason": pl.String(),  # rsna_seq.reasons.Reason
    "detail": pl.String(),
    "study": pl.String(),  # what the header still told, else null
    "slice": pl.String(),
    "z_mm": pl.Float64(),
}
"""``quarantine.parquet``: one row a file, series or study that is not read."""

SLABS: Schema = {
    "study": pl.String(),  # StudyInstanceUID; of its second pass UID/2 (slabs.py: no two share a name)
    "patient": pl.String(),
    "slab": pl.Int32(),  # 0 is the lowest; a slab is one slice, but for thin series
    **_GAPS,
    "slices": pl.List(pl.String()),  # SOPInstanceUIDs of the slices averaged
    "hashes": pl.List(pl.String()),  # of each of their pixels (imaging.pixels.pixel_hash)
    "unwrapped": pl.Int32(),  # how many of them had a 12-bit wrap that was corrected
    "shard": pl.Int32(),
    "row": pl.Int64(),  # row of the shard's array
    "x0": pl.Int32(),  # crop in pixels of the slice: left, top, side (may reach outside)
    "y0": pl.Int32(),
    "side": pl.Int32(),
    **_LABELS,  # the highest of its slices
    **_FOLDS,
}
"""``2_cache/slabs.parquet``: one row a row of the cache; the key of everything that is learned."""

LOGITS: Schema = {
    "study": pl.String(),
    "slab": pl.Int32(),
    "net": pl.Int16(),  # fold of the embed network that made it
    "cross": pl.Int16(),  # fold of the sequence or stack model; -1 for embed's own
    **_LOGITS,
}
"""``logits.parquet`` of ``embed``, ``sequence`` and ``stack``."""

PREDICTED_SLICES: Schema = {
    "study": pl.String(),
    "series": pl.String(),
    "slice": pl.String(),
    "file": pl.String(),
    "z_mm": pl.Float64(),
    **_LOGITS,
}
"""``slices.csv`` of a prediction: probabilities, not logits."""


def check(table: pl.DataFrame, schema: Schema, name: str) -> pl.DataFrame:
    """Return the table with the schema's columns in the schema's order.

    Raises:
        IntegrityError: Columns are missing, unknown or of another type; all faults are named at once.
    """
    found = dict(table.schema)
    faults = [f"column {c!r} is missing" for c in schema if c not in found]
    faults += [f"column {c!r} is unknown" for c in found if c not in schema]
    faults += [
        f"column {c!r} is {found[c]}, not {t}" for c, t in schema.items() if c in found and found[c] != t
    ]
    if faults:
        raise IntegrityError(f"{name}: " + "; ".join(faults))
    return table if list(found) == list(schema) else table.select(list(schema))


def logit_table(
    slabs: pl.DataFrame, logits: NDArray[np.float64], *, net: int, cross: int = -1
) -> pl.DataFrame:
    """Logits as a table of the LOGITS schema.

    Args:
        slabs: (slab,) rows of SLABS, in the order of the logits.
        logits: (slab, 6).
        net: Fold of the embedding network.
        cross: Fold of the sequence or stack model; -1 for the network's own logits.
    """
    keys = slabs.select("study", "slab", net=pl.lit(net, pl.Int16), cross=pl.lit(cross, pl.Int16))
    columns = [pl.Series(name, logits[:, i], pl.Float64) for i, name in enumerate(CLASSES)]
    return keys.with_columns(columns)


def table_digest(table: pl.DataFrame) -> str:
    """SHA-256 of a table's values, for the key of what is made from it."""
    return hashlib.sha256(table.write_csv().encode()).hexdigest()


def from_rows(rows: list[dict[str, object]], schema: Schema) -> pl.DataFrame:
    """Build a table of a schema from row dicts; absent keys become null."""
    return pl.DataFrame(
        [{c: row.get(c) for c in schema} for row in rows], schema=dict(schema), infer_schema_length=None
    )


def write_table(table: pl.DataFrame, path: Path, schema: Schema) -> None:
    """Check a table and write it as Parquet, complete or not at all."""
    buffer = io.BytesIO()  # so that the size is known, and a full disk is the operating system's own error
    check(table, schema, path.name).write_parquet(buffer, compression="zstd")
    write_bytes(path, buffer.getbuffer())


def read_table(path: Path, schema: Schema) -> pl.DataFrame:
    """Read a Parquet table and check its columns.

    Args:
        path: The file; of an artefact as :meth:`rsna_seq.store.artifacts.Artifact.file` gives it, whose
            digest was compared.
        schema: Its columns.

    Raises:
        IntegrityError: The file is absent, damaged, or of another schema.
    """
    try:
        table = pl.read_parquet(path, memory_map=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise IntegrityError(f"{path}: not readable as a table ({error}); rebuild its stage") from error
    return check(table, schema, str(path))


def report_exclusions(quarantine: pl.DataFrame, flags: Sequence[str] = ()) -> None:
    """Say how many inputs were set aside, reason by reason, and what else a user should know.

    Args:
        quarantine: QUARANTINE.
        flags: The flags of each study, comma-separated.
    """
    counted = quarantine.group_by("action", "reason").len().sort("len", "reason", descending=[True, False])
    for action, reason, count in counted.rows():
        say("", f"{count:,} {action}: {Reason(reason).sentence} ({reason})")
    for line in flag_sentences(flags):
        say("", line)


def nothing_usable(quarantine: pl.DataFrame, out: Path, what: str) -> NothingUsableError:
    """Leave ``quarantine.parquet`` in an artefact's folder, print the counts by reason, and name both.

    Args:
        quarantine: QUARANTINE.
        out: The folder of the artefact, which stays incomplete.
        what: What was found to be unusable.

    Returns:
        The error to raise.
    """
    write_table(quarantine, out / "quarantine.parquet", QUARANTINE)
    report_exclusions(quarantine)
    counted = quarantine.group_by("reason").len().sort("len", "reason", descending=[True, False])
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counted.rows())
    words = f" ({reasons}; see {out / 'quarantine.parquet'})" if reasons else ""
    return NothingUsableError(what + words)


def read_index(run: str | os.PathLike[str]) -> pl.DataFrame:
    """The slices of a run's index, SLICES: ordered, labelled, in folds; ``.to_pandas()`` for pandas users."""
    return read_table(open_artifact(RunFolder(run)["index"]).file("slices.parquet"), SLICES)
