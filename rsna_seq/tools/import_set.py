"""``import``: the tables of a data set, and ``index`` of imported sets."""

from pathlib import Path
from typing import cast

import polars as pl

from rsna_seq.config import Config, IndexConfig
from rsna_seq.console import progress, say
from rsna_seq.context import Context
from rsna_seq.datasets.files import Rows
from rsna_seq.datasets.imported import DatasetName, ImportedSet, read_set, read_sets, write_set
from rsna_seq.datasets.importers import IMPORTERS
from rsna_seq.datasets.labelling import Labelled, join_labels
from rsna_seq.errors import UsageError
from rsna_seq.imaging.headers.chunks import Chunk, read_chunks
from rsna_seq.imaging.headers.fields import HEADERS
from rsna_seq.imaging.sources import Listing, list_files, must_exist
from rsna_seq.labels import CLASSES
from rsna_seq.stages import index
from rsna_seq.store.artifacts import BuildSummary, Key, Manifest
from rsna_seq.store.builds import ensure
from rsna_seq.store.provenance import digest_file, source_digest
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.store.tables import (
    QUARANTINE,
    SLICES,
    STUDIES,
    STUDY_LABELS,
    STUDY_LABELS_FILE,
    nothing_usable,
    report_exclusions,
    write_table,
)

_CHUNK = 512
"""Files per chunk of headers."""


def run(dataset: str, source: Path, out: Path, cfg: Config, *, rebuild: bool = False) -> Manifest:
    """Write the tables of a data set.

    Args:
        dataset: Name of the data set.
        source: Its folder.
        out: Receives the tables.
        cfg: ``imports``, ``index.assume_hu`` and ``workers``.
        rebuild: Import again, even if nothing changed.

    Raises:
        UsageError: Files of the data set are missing, or its labels contradict each other.
        NothingUsableError: There is no readable image.
        EnvironmentFaultError: nibabel is needed and not installed.
    """
    if dataset not in IMPORTERS:
        raise UsageError(f"{dataset}: no such data set; known are {', '.join(IMPORTERS)}")
    must_exist(source, "SOURCE")
    workers, imports = Context.of(cfg).workers, cfg.imports

    def read(listing: Listing) -> tuple[pl.DataFrame, Rows]:
        return _read(listing, workers, assume_hu=cfg.index.assume_hu)

    def build(folder: Path) -> BuildSummary:
        made = IMPORTERS[cast(DatasetName, dataset)](source, read, imports)
        if made.headers.is_empty():
            raise nothing_usable(made.quarantine, folder, f"import: no readable CT image in {source}")
        write_set(made, folder)
        return _summary(made)

    used = [file for file in (imports.labels, imports.boxes) if file is not None]
    inputs = {"files": list_files(source).digest} | {
        f"csv{i}": digest_file(file) for i, file in enumerate(used)
    }
    config = {"dataset": dataset, "source": str(source.resolve()), "assume_hu": cfg.index.assume_hu}
    config |= imports.model_dump(mode="json")
    key = Key("import", config, inputs, source_digest(__name__))
    manifest = ensure(out, key, build, rebuild=rebuild, sources=[source, *used])
    for note in read_set(out).info.notes:
        say("import", note)
    return manifest


def _read(listing: Listing, workers: int, *, assume_hu: bool) -> tuple[pl.DataFrame, Rows]:
    """Headers of the files of a listing, and rows of QUARANTINE."""
    tables, aside = [pl.DataFrame(schema=HEADERS)], [*listing.aside]
    chunks = [Chunk(part, assume_hu) for part in listing.parts(_CHUNK)]
    with progress("import", len(listing)) as advance:
        for files, good, bad in read_chunks(chunks, workers):
            tables.append(good)
            aside += bad
            advance(files)
    return pl.concat(tables), aside


def _summary(made: ImportedSet) -> BuildSummary:
    report_exclusions(made.quarantine)
    levels = made.labels["level"]
    counts = {
        "images": len(made.headers),
        "studies": made.headers["study"].n_unique(),
        "labels of slices": int((levels == "slice").sum()),
        "labels of studies": int((levels == "study").sum()),
    }
    return BuildSummary(counts, dict(made.quarantine.group_by("reason", maintain_order=True).len().rows()))


def run_index(cfg: IndexConfig, ctx: Context, run: RunFolder) -> Manifest:
    """Write ``1_index`` of imported sets.

    Args:
        cfg: Folds, holdout, series.
        ctx: Sets, seed, limit.
        run: Receives ``1_index``.

    Raises:
        UsageError: A folder is no imported set, labels contradict each other, or ``data.labels`` is set.
        NothingUsableError: There is no image that can be used.
    """
    folders = ctx.data.sets or (ctx.data.root,)
    for folder in folders:
        must_exist(folder, "data.sets" if ctx.data.sets else "data.root")
    if ctx.data.labels is not None:
        raise UsageError(
            f"data.labels={ctx.data.labels}: {folders[0]} is an imported set with labels of its own; leave "
            "data.labels out, or import it again with imports.labels"
        )
    sets = read_sets(folders)

    def build(folder: Path) -> BuildSummary:
        found = index.scan(folders, cfg, limit=ctx.limit)
        if found.slices.is_empty():
            raise nothing_usable(
                found.quarantine, folder, f"index: no usable image in {len(folders)} imported sets"
            )
        labelled = join_labels(found.slices, found.studies, sets.labels, cfg, ctx.seed)
        _say_of(labelled)
        return _write(labelled, found.quarantine, folder)

    config = {**cfg.model_dump(mode="json"), **ctx.key}
    key = Key("index", config, sets.contents, source_digest(__name__))
    return ensure(run["index"], key, build, rebuild=ctx.rebuild, sources=[*folders, *sets.sources])


def _say_of(labelled: Labelled) -> None:
    """Print what is not labelled."""
    known = pl.any_horizontal(pl.col(c).is_not_null() for c in CLASSES)
    bare = len(labelled.studies.filter(~known))
    if labelled.unused or bare:
        say("index", f"{labelled.unused:,} labels without a readable image, {bare:,} studies without a label")
    absent = [c for c in CLASSES if labelled.studies[c].null_count() == len(labelled.studies)]
    if absent:
        say("index", f"no study has a label for {', '.join(absent)}")


def _write(labelled: Labelled, quarantine: pl.DataFrame, out: Path) -> BuildSummary:
    write_table(labelled.slices, out / "slices.parquet", SLICES)
    write_table(labelled.studies, out / "studies.parquet", STUDIES)
    write_table(quarantine, out / "quarantine.parquet", QUARANTINE)
    counts = {"slices": len(labelled.slices), "studies": len(labelled.studies)}
    if len(labelled.study_labels):
        write_table(labelled.study_labels, out / STUDY_LABELS_FILE, STUDY_LABELS)
        counts["studies with a label of the whole study"] = len(labelled.study_labels)
    report_exclusions(quarantine, labelled.studies["flags"].to_list())
    return BuildSummary(counts, dict(quarantine.group_by("reason", maintain_order=True).len().rows()))
