"""Imported data sets: tables of images, labels and studies, from ``rsna-seq import`` for ``index``.

The files and columns are described in ``docs/datasets.md``. Images stay where they are: ``source`` in
``dataset.json`` names their folder.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from rsna_seq.config import DataConfig
from rsna_seq.errors import IntegrityError, UsageError
from rsna_seq.imaging.headers.fields import HEADERS
from rsna_seq.imaging.sources import root_of
from rsna_seq.labels import CLASSES
from rsna_seq.store.artifacts import Artifact, open_artifact
from rsna_seq.store.files import write_text
from rsna_seq.store.tables import QUARANTINE, Schema, check, read_table, write_table

DatasetName = Literal["rsna2019", "cq500", "physionet", "bhsd", "folder"]
"""Data sets that have an importer."""
_ANY = "any"
_TYPES = tuple(c for c in CLASSES if c != _ANY)
_FILE = "dataset.json"

LABELS: Schema = {
    "study": pl.String(),
    "slice": pl.String(),  # null where level is study
    "level": pl.String(),  # slice or study
    **{c: pl.Int8() for c in CLASSES},  # null where it is not known
}
"""``labels.parquet``: one row per labelled slice or study."""

ABOUT: Schema = {
    "study": pl.String(),
    "name": pl.String(),  # name of the study in the data set
    "patient": pl.String(),
    "age": pl.Float64(),  # years
    "sex": pl.String(),
    "scanner": pl.String(),  # manufacturer and model
}
"""``studies.parquet``: one row per study, for subgroups."""


class SetInfo(BaseModel):
    """``dataset.json``: what an imported set is."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    format: Literal[1] = 1
    dataset: DatasetName
    """Importer that wrote the tables."""
    source: Path
    """Folder that ``file`` in the tables is relative to."""
    external: bool
    """Whether a network that was trained on the RSNA set may be evaluated on it as external data."""
    derived_from: str | None = None
    """Data set from which the images were taken."""
    notes: tuple[str, ...] = ()
    """What the images or labels lack, as sentences."""


@dataclass(frozen=True)
class ImportedSet:
    """An imported set.

    Attributes:
        info: What it is.
        headers: HEADERS; ``file`` is relative to ``info.source``.
        labels: LABELS.
        studies: ABOUT.
        quarantine: QUARANTINE.
    """

    info: SetInfo
    headers: pl.DataFrame
    labels: pl.DataFrame
    studies: pl.DataFrame
    quarantine: pl.DataFrame


def is_imported(folder: Path) -> bool:
    """Whether a folder was written by ``rsna-seq import``."""
    return (folder / _FILE).is_file()


def reads_sets(data: DataConfig) -> bool:
    """Whether the images of a run are imported sets."""
    return bool(data.sets) or is_imported(data.root)


def write_set(made: ImportedSet, folder: Path) -> None:
    """Write the files of an imported set into an artefact's folder.

    Raises:
        IntegrityError: A table has other columns than its schema.
        UsageError: Labels contradict each other.
    """
    must_agree(made.labels)
    write_table(made.headers, folder / "headers.parquet", HEADERS)
    write_table(made.labels, folder / "labels.parquet", LABELS)
    write_table(made.studies, folder / "studies.parquet", ABOUT)
    write_table(made.quarantine, folder / "quarantine.parquet", QUARANTINE)
    write_text(folder / _FILE, made.info.model_dump_json(indent=1) + "\n")


def read_set(folder: Path) -> ImportedSet:
    """Read an imported set.

    Args:
        folder: Output folder of ``rsna-seq import``.

    Raises:
        IntegrityError: It is incomplete, damaged, or of another format.
    """
    made = open_artifact(folder)
    names = {"headers": HEADERS, "labels": LABELS, "studies": ABOUT, "quarantine": QUARANTINE}
    tables = {name: read_table(made.file(f"{name}.parquet"), schema) for name, schema in names.items()}
    return ImportedSet(_info(made), **tables)


def _info(made: Artifact) -> SetInfo:
    file = made.file(_FILE)
    try:
        return SetInfo.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise IntegrityError(f"{file}: not a data set of this version; import it again") from error


def images_root(places: Sequence[Path]) -> Path:
    """Folder that ``file`` in the tables of ``index`` is relative to.

    Args:
        places: Imported sets, or one folder or file of images.
    """
    if any(map(is_imported, places)):
        return _common([_info(open_artifact(place)).source for place in places])
    return root_of(places[0])


def _common(roots: Sequence[Path]) -> Path:
    return Path(os.path.commonpath(roots))


@dataclass(frozen=True)
class JoinedSets:
    """Several imported sets as one.

    Attributes:
        root: Deepest folder that contains the images of all.
        headers: HEADERS, relative to ``root``.
        labels: LABELS.
        quarantine: QUARANTINE, relative to ``root``.
        sources: Folder of the images of each set.
        contents: Digest of each set, by the name of an input.
    """

    root: Path
    headers: pl.DataFrame
    labels: pl.DataFrame
    quarantine: pl.DataFrame
    sources: list[Path]
    contents: dict[str, str]


def read_sets(folders: Sequence[Path]) -> JoinedSets:
    """Read imported sets and join them.

    Raises:
        UsageError: One of the folders is no imported set, or two sets have different labels of a study.
        IntegrityError: A set is damaged.
    """
    others = [folder for folder in folders if not is_imported(folder)]
    if others:
        raise UsageError(
            f"{others[0]}: not written by rsna-seq import, while other inputs are; import it too, or read it "
            "alone"
        )
    sets = [read_set(folder) for folder in folders]
    sources = [made.info.source for made in sets]
    root = _common(sources)
    tables: dict[str, list[pl.DataFrame]] = {"headers": [], "quarantine": []}
    for made in sets:
        way = os.path.relpath(made.info.source, root)
        prefix = "" if way == os.curdir else way + "/"
        for name, parts in tables.items():
            parts.append(getattr(made, name).with_columns(file=pl.lit(prefix) + pl.col("file")))
    labels = pl.concat([made.labels for made in sets]).unique(maintain_order=True)
    must_agree(labels)
    contents = {f"set{i}": open_artifact(folder).manifest.content for i, folder in enumerate(folders)}
    headers, quarantine = (pl.concat(tables[name]) for name in ("headers", "quarantine"))
    return JoinedSets(root, headers, labels, quarantine, sources, contents)


def label_rows(rows: pl.DataFrame, level: Literal["slice", "study"]) -> pl.DataFrame:
    """Make LABELS of one level, and complete what follows from other classes.

    A class without a column stays unknown everywhere, also where another class excludes it: known labels that
    are all 0, or all 1, would be taken for its prevalence.

    Args:
        rows: ``study``, for slices ``slice``, and any of the six classes with 0, 1 or null. Where ``any`` is
            0, the types that have a column become 0; ``any`` is completed from the types if it has a column
            or all five types have one.
        level: The level.
    """
    given = [c for c in CLASSES if c in rows.columns]
    absent = [pl.lit(None, pl.Int8).alias(c) for c in CLASSES if c not in given]
    table = rows.with_columns(pl.col(c).cast(pl.Int8) for c in given).with_columns(absent)
    highest = pl.max_horizontal(_TYPES)  # ignores nulls
    all_known = pl.all_horizontal(pl.col(c).is_not_null() for c in _TYPES)
    if _ANY in given or set(_TYPES) <= set(given):
        said = pl.coalesce(_ANY, pl.when(all_known).then(highest))
        table = table.with_columns(pl.when(highest == 1).then(highest).otherwise(said).alias(_ANY))
    clear = pl.col(_ANY) == 0
    table = table.with_columns(
        pl.when(clear).then(pl.lit(0, pl.Int8)).otherwise(c).alias(c) for c in _TYPES if c in given
    )
    key = pl.col("slice") if level == "slice" else pl.lit(None, pl.String)
    return check(
        table.select("study", key.alias("slice"), pl.lit(level).alias("level"), *CLASSES).filter(
            pl.any_horizontal(pl.col(c).is_not_null() for c in CLASSES)
        ),
        LABELS,
        "labels",
    )


def must_agree(labels: pl.DataFrame) -> None:
    """Refuse a slice or study with two rows, and a slice with a class that its study does not have.

    Args:
        labels: LABELS.

    Raises:
        UsageError: Labels contradict each other; the first few are named.
    """
    twice = labels.filter(pl.struct("study", "slice", "level").is_duplicated())
    _refuse(twice, "have more than one row of labels")
    mine = labels.filter(pl.col("level") == "slice")
    whole = labels.filter(pl.col("level") == "study").select(
        "study", *(pl.col(c).alias(f"_{c}") for c in CLASSES)
    )
    both = mine.join(whole, on="study", how="inner", maintain_order="left")
    clash = both.filter(pl.any_horizontal((pl.col(c) == 1) & (pl.col(f"_{c}") == 0) for c in CLASSES))
    _refuse(clash, "have a class in a slice that the label of their study excludes")


def _refuse(found: pl.DataFrame, what: str) -> None:
    if found.is_empty():
        return
    names = found["slice"].fill_null(found["study"]).unique(maintain_order=True)
    raise UsageError(f"labels: {len(names):,} slices or studies {what}: {', '.join(names.head(5))}")
