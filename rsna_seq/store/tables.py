"""Schemas of all tables on disk; tables are checked on write and on read.

Rows are sorted: studies by StudyInstanceUID, slices from the lowest to the highest along the slice normal.
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
from rsna_seq.imaging.headers.fields import STORED
from rsna_seq.labels import CLASSES
from rsna_seq.reasons import Reason, flag_sentences
from rsna_seq.store.artifacts import open_artifact
from rsna_seq.store.files import write_bytes
from rsna_seq.store.run_folder import RunFolder

Schema = Mapping[str, pl.DataType]

_LABELS: dict[str, pl.DataType] = {name: pl.Int8() for name in CLASSES}
_LOGITS: dict[str, pl.DataType] = {name: pl.Float64() for name in CLASSES}
_GAPS: dict[str, pl.DataType] = {
    "z_mm": pl.Float64(),  # position along the slice normal, pointing to +z
    "gap_below_mm": pl.Float64(),  # distance to the slice below; null for the first
    "gap_above_mm": pl.Float64(),  # distance to the slice above; null for the last
}
_FOLDS: dict[str, pl.DataType] = {
    "fold": pl.Int16(),  # fold of embed; -1 if held out; null without labels
    "cross_fold": pl.Int16(),  # fold of sequence and stack; -1 and null as above
}

SLICES: Schema = {
    **{name: STORED[name] for name in ("study", "series", "slice", "patient")},
    "file": pl.String(),  # relative to the indexed root; studies.zip!/name in an archive
    "frame": STORED["frame"],
    "pass": pl.Int16(),  # number of the pass; above 0 only if two passes overlap
    "order": pl.Int32(),  # 0 for the lowest slice of the study
    **_GAPS,
    **STORED,  # those that are not above: PixelSpacing and further elements (imaging.headers.fields)
    "file_size": pl.Int64(),
    "file_mtime_ns": pl.Int64(),
    "flags": pl.String(),  # comma-separated (geometry.flag): no_position, overlap, gap, ...
    **_LABELS,  # null without labels
    **_FOLDS,
}
"""``1_index/slices.parquet``: one row per slice that is used."""

STUDIES: Schema = {
    "study": pl.String(),
    "patient": pl.String(),
    "series": pl.String(),
    "slices": pl.Int32(),
    "spacing_mm": pl.Float64(),  # median distance between slices; null for a single slice
    "spacing_regions": pl.String(),  # runs of equal gaps from below in mm, such as 12 x 2.5, 20 x 5.0
    "tilt_deg": pl.Float64(),  # gantry tilt: angle between the slice normal and z
    "passes": pl.Int16(),  # passes over the same part of the head, separated or flagged as overlap
    "largest_gap_mm": pl.Float64(),
    "gaps": pl.Int32(),  # number of gaps of nearly twice the spacing or more
    "grounds": pl.String(),  # why this series was chosen
    "flags": pl.String(),
    **_LABELS,  # a class is 1 if any slice has it
    **_FOLDS,
}
"""``1_index/studies.parquet``: one row per study."""

STUDY_LABELS: Schema = {"study": pl.String(), **_LABELS}
"""``1_index/study_labels.parquet``, only if whole studies have labels; null where unknown."""
STUDY_LABELS_FILE = "study_labels.parquet"
"""Its name, in ``1_index`` and, with a row for each pass, in ``2_cache``."""

QUARANTINE: Schema = {
    "file": pl.String(),
    "action": pl.String(),  # rsna_seq.reasons.Action
    "reason": pl.String(),  # rsna_seq.reasons.Reason
    "detail": pl.String(),
    "study": pl.String(),  # from the header if readable, otherwise null
    "slice": pl.String(),
    "z_mm": pl.Float64(),
}
"""``quarantine.parquet``: one row per file, series or study that is not used."""

SLABS: Schema = {
    "study": pl.String(),  # StudyInstanceUID; UID/2 for its second pass (unique, see slabs.py)
    "patient": pl.String(),
    "slab": pl.Int32(),  # 0 for the lowest; a slab is one slice, except in thin series
    **_GAPS,
    "slices": pl.List(pl.String()),  # SOPInstanceUIDs of the averaged slices
    "hashes": pl.List(pl.String()),  # imaging.pixels.pixel_hash of each slice
    "unwrapped": pl.Int32(),  # number of slices with a corrected 12-bit wrap
    "shard": pl.Int32(),
    "row": pl.Int64(),  # row in the shard's array
    "x0": pl.Int32(),  # crop in pixels of the slice: left, top, side (may reach outside)
    "y0": pl.Int32(),
    "side": pl.Int32(),
    "brain_hu": pl.Float64(),  # mode of brain tissue of the pass, before the shift; null where unknown
    "hu_shift": pl.Int32(),  # HU that were added to the pass; null where unknown
    **_LABELS,  # maximum over its slices
    **_FOLDS,
}
"""``2_cache/slabs.parquet``: one row per row of the cache; all learned stages refer to these rows."""

LOGITS: Schema = {
    "study": pl.String(),
    "slab": pl.Int32(),
    "net": pl.Int16(),  # fold of the embed network
    "cross": pl.Int16(),  # fold of the sequence or stack model; -1 for logits of embed
    **_LOGITS,
}
"""``logits.parquet`` of ``embed``, ``sequence`` and ``stack``."""

_NUMBERS: dict[str, pl.DataType] = {
    "brain_hu": pl.Float64(),  # mode of brain tissue before the shift of cache, HU
    "noise_hu": pl.Float64(),  # noise in brain tissue at the size of the cache, HU
    "spacing_mm": pl.Float64(),  # median distance between slabs
    "largest_gap_mm": pl.Float64(),
    "embedding_distance": pl.Float64(),  # to training studies; 1 is the median of training
}

TRAINING: Schema = {
    "study": pl.String(),  # as in SLABS
    "net": pl.Int16(),  # fold of the embed network in whose space the study lies
    **_NUMBERS,
}
"""``training.parquet`` of ``stack``: numbers of the training studies, with which unseen ones are compared."""

STUDY_CHECKS: Schema = {
    "study": pl.String(),
    "unlike_training": pl.Boolean(),  # novelty is above 1
    "unlike_reason": pl.String(),  # empty if the study is like training
    "novelty": pl.Float64(),  # rsna_seq.scoring.novelty; 1 is the limit
    **_NUMBERS,
    **{f"{name}_percentile": pl.Float64() for name in _NUMBERS},  # in the training studies, 0 to 100
    **{f"{name}_spread": pl.Float64() for name in CLASSES},  # over the networks, see predict
}
"""Columns of ``studies.csv`` that say how far a study and its probabilities can be relied on."""

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
    """Make a table of the LOGITS schema.

    Args:
        slabs: (slab,) rows of SLABS, in the order of the logits.
        logits: (slab, 6).
        net: Fold of the embedding network.
        cross: Fold of the sequence or stack model; -1 for logits of the embedding network.
    """
    keys = slabs.select("study", "slab", net=pl.lit(net, pl.Int16), cross=pl.lit(cross, pl.Int16))
    columns = [pl.Series(name, logits[:, i], pl.Float64) for i, name in enumerate(CLASSES)]
    return keys.with_columns(columns)


def table_digest(table: pl.DataFrame) -> str:
    """SHA-256 of a table's values, for the keys of artefacts built from it."""
    return hashlib.sha256(table.write_csv().encode()).hexdigest()


def from_rows(rows: list[dict[str, object]], schema: Schema) -> pl.DataFrame:
    """Build a table of a schema from row dicts; absent keys become null."""
    return pl.DataFrame(
        [{c: row.get(c) for c in schema} for row in rows], schema=dict(schema), infer_schema_length=None
    )


def write_table(table: pl.DataFrame, path: Path, schema: Schema) -> None:
    """Check a table and write it as Parquet, atomically."""
    buffer = io.BytesIO()  # so that the size is known, and a full disk raises an OSError
    check(table, schema, path.name).write_parquet(buffer, compression="zstd")
    write_bytes(path, buffer.getbuffer())


def read_table(path: Path, schema: Schema) -> pl.DataFrame:
    """Read a Parquet table and check its columns.

    Args:
        path: The file; for an artefact use :meth:`rsna_seq.store.artifacts.Artifact.file`, which compares its
            digest.
        schema: Expected columns.

    Raises:
        IntegrityError: The file is missing or damaged, or has another schema.
    """
    try:
        table = pl.read_parquet(path, memory_map=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise IntegrityError(
            f"{path}: not readable as a Parquet table ({error}); run its stage again"
        ) from error
    return check(table, schema, str(path))


def report_exclusions(quarantine: pl.DataFrame, flags: Sequence[str] = ()) -> None:
    """Print how many inputs were excluded, by reason, and which unusual inputs were accepted.

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
    """Write ``quarantine.parquet``, print the counts by reason, and return an error that names both.

    Args:
        quarantine: QUARANTINE.
        out: The folder of the artefact, which remains incomplete.
        what: Start of the error message: what is unusable.

    Returns:
        The error to raise.
    """
    write_table(quarantine, out / "quarantine.parquet", QUARANTINE)
    report_exclusions(quarantine)
    counted = quarantine.group_by("reason").len().sort("len", "reason", descending=[True, False])
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counted.rows())
    details = f" ({reasons}; see {out / 'quarantine.parquet'})" if reasons else ""
    return NothingUsableError(what + details)


def read_index(run: str | os.PathLike[str]) -> pl.DataFrame:
    """Read the slices of a run's index (SLICES), ordered, with labels and folds, as a polars table."""
    return read_table(open_artifact(RunFolder(run)["index"]).file("slices.parquet"), SLICES)
