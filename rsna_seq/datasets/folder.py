"""Any folder of DICOM or NIfTI files, with labels of studies or slices in any CSV.

1. Columns of the CSV are mapped to ``id``, ``slice``, ``patient`` and the six classes (``imports.columns``).
2. ``id`` is looked up among the names of slices and studies: SOPInstanceUID, path and name of a file;
   StudyInstanceUID, PatientID, path and name of the folder, name of a NIfTI file. Case and suffixes do not
   matter. An id that fits two studies is an error.
3. Classes without a column are unknown; training masks them.
"""

from pathlib import Path, PurePosixPath
from typing import Literal

import polars as pl

from rsna_seq.config import ImportConfig
from rsna_seq.datasets.answers import answers, read_columns
from rsna_seq.datasets.csv_file import ROW, CsvFile, printable_names
from rsna_seq.datasets.files import ReadHeaders, about_studies, is_image, part_of
from rsna_seq.datasets.imported import LABELS, ImportedSet, SetInfo, label_rows
from rsna_seq.errors import UsageError
from rsna_seq.imaging.nifti import SYNTAX, stem_of
from rsna_seq.imaging.sources import list_files
from rsna_seq.labels import CLASSES
from rsna_seq.store.tables import QUARANTINE, from_rows

_KEYS = ("id", "slice", "patient")
_SHOWN = 5


def read_folder(source: Path, read: ReadHeaders, cfg: ImportConfig) -> ImportedSet:
    """Read a folder and its labels.

    Args:
        source: Folder or zip file of DICOM or NIfTI files.
        read: Reads headers.
        cfg: ``labels``, ``columns`` and ``level``.

    Raises:
        UsageError: A column is absent, no id is known or one fits two studies, or a label is unreadable.
    """
    listing = part_of(list_files(source), is_image)
    headers, aside = read(listing)
    headers = _plainly_named(headers)
    labels, notes, patients = pl.DataFrame(schema=dict(LABELS)), [], dict[str, str]()
    if cfg.labels is not None:
        opened, columns = _opened(cfg)
        table = opened.table.select(
            ROW, **{k: pl.col(c).str.strip_chars() for k, c in columns.items() if k in _KEYS}
        )
        said = answers(opened, {k: c for k, c in columns.items() if k not in _KEYS})
        level, at = _found(opened, table, headers, cfg.level)
        lost = len(table) - len(at)
        if lost:
            names = table.join(at, on=ROW, how="anti")["id"].head(_SHOWN).to_list()
            notes.append(f"{lost} of {len(table)} rows of the CSV fit no {level}: {printable_names(names)}")
        labels = label_rows(at.join(said, on=ROW, maintain_order="left"), level)
        if "patient" in columns:
            known = at.join(table.select(ROW, "patient"), on=ROW).drop_nulls("patient")
            patients = _one_patient(known, opened.name)
        absent = [
            c
            for c in CLASSES
            if c not in columns and not (c == "any" and labels["any"].null_count() < len(labels))
        ]
        notes += [f"the CSV has no column for {', '.join(absent)}"] if absent else []
    if patients:
        headers = headers.with_columns(
            patient=pl.coalesce(
                pl.col("study").replace_strict(patients, default=None, return_dtype=pl.String), "patient"
            )
        )
    info = SetInfo(dataset="folder", source=listing.root.resolve(), external=True, notes=tuple(notes))
    about = about_studies(headers, listing.root, {})
    return ImportedSet(info, headers, labels, about, from_rows(aside, QUARANTINE))


def _plainly_named(headers: pl.DataFrame) -> pl.DataFrame:
    """Name NIfTI studies by their file alone where that is unique, else by their path."""
    volumes = headers.filter(pl.col("transfer_syntax") == SYNTAX)["file"].unique().sort()
    if volumes.is_empty():
        return headers
    stems = [stem_of(file) for file in volumes]
    names = {
        file: stem if stems.count(stem) == 1 else str(PurePosixPath(file).parent / stem).replace("/", "-")
        for file, stem in zip(volumes, stems, strict=True)
    }
    mine = pl.col("transfer_syntax") == SYNTAX
    name = pl.col("file").replace_strict(names, default=None, return_dtype=pl.String)
    frame = (pl.col("frame") + 1).cast(pl.String)
    return headers.with_columns(
        *(pl.when(mine).then(name).otherwise(c).alias(c) for c in ("study", "series", "patient")),
        slice=pl.when(mine).then(name + "#" + frame).otherwise("slice"),
    )


def _opened(cfg: ImportConfig) -> tuple[CsvFile, dict[str, str]]:
    """The CSV, and the columns that it has: mapped ones must be there, others go by our names."""
    assert cfg.labels is not None
    mapped: dict[str, str] = {str(key): name for key, name in cfg.columns.items()}
    taken = set(mapped.values()) - {"id"}  # a column that was mapped has no other meaning by its name
    wanted = {key: mapped.get(key, key) for key in (*_KEYS, *CLASSES) if key in mapped or key not in taken}
    opened = read_columns(cfg.labels, wanted, optional=set(wanted) - set(mapped) - {"id"})
    columns = {key: name for key, name in wanted.items() if name in opened.columns}
    if not set(columns) & set(CLASSES):
        raise UsageError(
            f"{cfg.labels}: no column is a class; its columns are {printable_names(list(opened.columns))}; "
            "map them, such as imports.columns.any=ICH"
        )
    return opened, columns


def _found(
    opened: CsvFile, table: pl.DataFrame, headers: pl.DataFrame, level: str
) -> tuple[Literal["slice", "study"], pl.DataFrame]:
    """Level of the rows, and ``row``, ``study`` and ``slice`` of those whose id was found."""
    keyed = table.with_columns(key=_plain(pl.col("id").fill_null("")))
    if "slice" in table.columns and level != "study":
        tried = {"slice": _numbered(opened, keyed, headers)}
    else:
        names = {"slice": _slice_names(headers), "study": _study_names(headers)}
        tried = {n: keyed.join(known, on="key", maintain_order="left") for n, known in names.items()}
    best = max(reversed(tried), key=lambda name: tried[name][ROW].n_unique())
    chosen: Literal["slice", "study"] = best if level == "auto" else level  # type: ignore[assignment]
    found = tried[chosen].select(ROW, "id", "study", "slice").unique(maintain_order=True)
    several = found.filter(pl.col(ROW).is_duplicated())["id"].unique(maintain_order=True)
    if len(several):
        raise UsageError(
            f"{opened.name}: {len(several)} ids fit more than one {chosen}: "
            f"{printable_names(several.to_list())}; use identifiers or paths that are unique"
        )
    if found.is_empty():
        some = printable_names(table["id"].fill_null("").head(_SHOWN).to_list())
        studies = printable_names(headers["study"].unique().sort().head(_SHOWN).to_list())
        raise UsageError(
            f"{opened.name}: no id is known ({some}); studies are known as {studies}, and by their paths"
        )
    return chosen, found.drop("id")


def _numbered(opened: CsvFile, keyed: pl.DataFrame, headers: pl.DataFrame) -> pl.DataFrame:
    """Rows that name a study and the number of a slice in it."""
    number = pl.col("slice").cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)
    rows = keyed.with_columns(number=number)
    bad = rows.filter(pl.col("number").is_null())
    if len(bad):
        lines = opened.lines(bad[ROW].head(_SHOWN).to_list())
        raise UsageError(
            f"{opened.name}: {len(bad)} rows have no number of a slice: lines {sorted(lines.values())}"
        )
    slices = headers.select(
        "study", "slice", number=pl.coalesce("number", pl.col("frame").cast(pl.Int64) + 1)
    )
    studies = rows.drop("slice").join(_study_names(headers).drop("slice"), on="key", maintain_order="left")
    return studies.join(slices, on=["study", "number"], maintain_order="left")


def _plain(name: pl.Expr) -> pl.Expr:
    """A name without case and suffix."""
    return name.str.to_lowercase().str.replace(r"\.(dcm|nii\.gz|nii)$", "").str.strip_chars("/")


def _slice_names(headers: pl.DataFrame) -> pl.DataFrame:
    """Names by which slices are known: identifier, path, file name."""
    single = headers.filter(pl.len().over("file") == 1)
    parts = [
        headers.select("study", "slice", key=_plain(pl.col("slice"))),
        single.select("study", "slice", key=_plain(pl.col("file"))),
        single.select("study", "slice", key=_plain(pl.col("file").str.extract(r"([^/]+)$"))),
    ]
    return pl.concat(parts).unique(maintain_order=True)


def _study_names(headers: pl.DataFrame) -> pl.DataFrame:
    """Names by which studies are known: identifiers, path and name of the folder, name of a NIfTI file.

    A folder that holds slices of several studies names none of them.
    """
    above = pl.col("file").str.extract(r"^(.*)/[^/]+$").fill_null("")
    nifti = headers.filter(pl.col("transfer_syntax") == SYNTAX)
    parts = [
        headers.select("study", key=_plain(pl.col("study"))),
        headers.select("study", key=_plain(pl.col("patient"))),
        nifti.select("study", key=_plain(pl.col("file"))),
        nifti.select("study", key=_plain(pl.col("file").str.extract(r"([^/]+)$"))),
    ]
    folders = headers.select("study", file=above).unique(maintain_order=True)
    depth = int(folders["file"].str.count_matches("/").max() or 0) + 1  # type: ignore[arg-type]
    for _ in range(depth):
        parts.append(folders.select("study", key=_plain(pl.col("file"))))
        parts.append(
            folders.select("study", key=_plain(pl.col("file").str.extract(r"([^/]+)$").fill_null("")))
        )
        folders = folders.with_columns(file=above)
    known = pl.concat(parts).filter(pl.col("key") != "").unique(maintain_order=True)
    return known.with_columns(slice=pl.lit(None, pl.String))


def _one_patient(known: pl.DataFrame, name: str) -> dict[str, str]:
    """Patient of each study; a study with two patients is an error."""
    unique = known.select("study", "patient").unique(maintain_order=True)
    several = unique.filter(pl.col("study").is_duplicated())["study"].unique(maintain_order=True)
    if len(several):
        raise UsageError(
            f"{name}: studies have more than one patient: {printable_names(several.head(_SHOWN).to_list())}"
        )
    return dict(unique.rows())
