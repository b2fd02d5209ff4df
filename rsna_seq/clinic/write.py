"""DICOM results of a prediction in a folder of their own: ``predict --dicom``.

For each study, in a folder named by its StudyInstanceUID: ``report.dcm`` (structured report),
``key_objects.dcm`` (Key Object Selection), ``capture_1.dcm`` and further (Secondary Captures).
``dicom.json`` lists them, with the studies that have none and why.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict
from pydicom.config import disable_value_validation

from rsna_seq.clinic.captures import Pixels, captures
from rsna_seq.clinic.identifiers import valid_uid
from rsna_seq.clinic.key_objects import key_objects
from rsna_seq.clinic.results import KeyImage, Results, Study
from rsna_seq.clinic.sources import read_source, to_bytes
from rsna_seq.clinic.structured_report import structured_report
from rsna_seq.console import progress, say
from rsna_seq.imaging.pixels import read_hu, series_is_wrapped
from rsna_seq.reasons import ExclusionError
from rsna_seq.store.artifacts import BuildSummary, Key, Manifest
from rsna_seq.store.builds import ensure
from rsna_seq.store.files import write_bytes, write_text
from rsna_seq.store.provenance import source_digest
from rsna_seq.store.tables import table_digest

KIND = "dicom"
"""First word of the manifest of such a folder."""
LIST = "dicom.json"


class Written(BaseModel):
    """The DICOM results of one study.

    Attributes:
        study: StudyInstanceUID of the input.
        study_uid: StudyInstanceUID of the results.
        files: Paths relative to the folder.
        notes: What was replaced or left out.
        reason: Why there are none, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    study_uid: str
    files: list[str] = []
    notes: list[str] = []
    reason: str | None = None


class WrittenList(BaseModel):
    """``dicom.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    studies: list[Written]


def write_dicom(
    results: Results,
    slices: pl.DataFrame,
    root: Path,
    out: Path,
    *,
    sources: list[Path],
    rebuild: bool = False,
) -> Manifest:
    """Write the DICOM results of all studies of a prediction; where one can have none, say why.

    Args:
        results: The prediction.
        slices: SLICES, from which the prediction was made.
        root: Folder that files are relative to.
        out: Receives the objects; it must be empty or contain such results.
        sources: Inputs, which ``out`` must not overlap.
        rebuild: Write again, even if everything is up to date.

    Raises:
        UsageError: ``out`` could contain other files.
    """

    def build(target: Path) -> BuildSummary:
        done = []
        with progress(KIND, len(results.studies)) as advance:
            for study in results.studies:
                done.append(_written(results, study, slices, root, target))
                advance(1)
        write_text(target / LIST, WrittenList(studies=done).model_dump_json(indent=1) + "\n")
        counts = {
            "studies": sum(not each.reason for each in done),
            "objects": sum(len(d.files) for d in done),
        }
        without = sum(bool(each.reason) for each in done)
        return BuildSummary(counts | ({"studies without results": without} if without else {}), {})

    key = Key(
        KIND,
        {"root": str(root.resolve()).encode(errors="replace").decode()},
        {"results": results.digest, "slices": table_digest(slices)},
        source_digest(__name__),
    )
    return ensure(out, key, build, rebuild=rebuild, sources=sources)


def _written(results: Results, study: Study, slices: pl.DataFrame, root: Path, out: Path) -> Written:
    """Write the objects of one study."""
    uid = valid_uid(study.study)
    try:
        source = read_source(root, study)
        rows = {
            row["slice"]: row for row in slices.filter(pl.col("study") == study.study).iter_rows(named=True)
        }
        with disable_value_validation(), warnings.catch_warnings():
            # names of patients are copied as they are, without a family name if the source has none
            warnings.filterwarnings("ignore", "The string .* is unlikely to represent", UserWarning)
            objects = {
                "report.dcm": structured_report(results, study, source),
                "key_objects.dcm": key_objects(results, study, source),
            }
            pictures = captures(results, study, source, lambda key: _pixels(root, rows, key))
            objects |= {f"capture_{i}.dcm": made for i, made in enumerate(pictures, start=1)}
    except (ExclusionError, ValueError, TypeError) as error:
        reason = str(error) if isinstance(error, ExclusionError) else f"{type(error).__name__}: {error}"
        say(KIND, f"study {study.study} has no DICOM results: {reason}")
        return Written(study=study.study, study_uid=uid, reason=reason)
    for name, made in objects.items():
        write_bytes(out / uid / name, to_bytes(made))
    files = [f"{uid}/{name}" for name in objects]
    return Written(study=study.study, study_uid=uid, files=files, notes=list(source.notes))


def _pixels(root: Path, rows: Mapping[str, Mapping[str, Any]], key: KeyImage) -> Pixels:
    """The pixels of a key image, and its pixel spacing; a square pixel where it is unknown."""
    row = rows[key.slice]
    series = [other for other in rows.values() if other["series"] == row["series"]]
    hu = read_hu(root / key.file, row, wrapped_series=series_is_wrapped(root, series))
    spacing = (row["row_mm"], row["col_mm"])
    return hu, spacing if all(spacing) else (1.0, 1.0)
