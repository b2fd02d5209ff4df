"""CQ500 (qure.ai): DICOM studies, ``reads.csv`` of three readers, and the bounding boxes of BHX if given.

The truth of a study is what two of its three readers say (Chilamkurthy et al., Lancet 2018). The label is of
the whole study. BHX (Reis et al., PhysioNet 2020) has boxes on slices of a part of the studies: where it is
given, slices of the series with boxes are labelled, and that series is the one that is read.

A slice with a box that BHX calls chronic has no label for the types without a box, because the type of a
chronic haemorrhage is not recorded.
"""

import re
from pathlib import Path

import polars as pl

from rsna_seq.config import ImportConfig
from rsna_seq.datasets.answers import answers, plain_name, read_columns
from rsna_seq.datasets.csv_file import ROW
from rsna_seq.datasets.files import ReadHeaders, Rows, about_studies, is_image, part_of, the_file
from rsna_seq.datasets.imported import LABELS, ImportedSet, SetInfo, label_rows
from rsna_seq.errors import UsageError
from rsna_seq.imaging.sources import list_files
from rsna_seq.labels import CLASSES
from rsna_seq.reasons import Action, Reason
from rsna_seq.store.tables import QUARANTINE, from_rows

_READERS = ("R1", "R2", "R3")
_FINDINGS = {
    "any": "ICH",
    "intraparenchymal": "IPH",
    "intraventricular": "IVH",
    "subdural": "SDH",
    "epidural": "EDH",
    "subarachnoid": "SAH",
}
_MAJORITY = 2
_STUDY = re.compile(r"CQ500[-_ ]?CT[-_ ]?(\d+)", re.IGNORECASE)
_BOXES = {c: c.capitalize() for c in CLASSES if c != "any"}
_CHRONIC = "chronic"


def read_cq500(source: Path, read: ReadHeaders, cfg: ImportConfig) -> ImportedSet:
    """Read CQ500.

    Args:
        source: Folder with ``reads.csv`` and the studies, unpacked or as zip files.
        read: Reads headers.
        cfg: ``labels`` replaces ``reads.csv``; ``boxes`` is a CSV of BHX.

    Raises:
        UsageError: There is no ``reads.csv``, or a CSV is malformed.
    """
    truth = majority(cfg.labels or the_file(source, ("reads.csv",), "labels of the readers"))
    listing = part_of(list_files(source), is_image)
    headers, aside = read(listing)
    names = _names_of(headers)
    headers = headers.with_columns(
        patient=pl.coalesce(
            pl.col("study").replace_strict(names, default=None, return_dtype=pl.String), "patient"
        )
    )
    keyed = pl.DataFrame(
        {"study": list(names), "name": list(names.values())},
        schema=dict.fromkeys(("study", "name"), pl.String),
    )
    of_studies = label_rows(keyed.join(truth, on="name", how="inner").sort("study"), "study")
    labels, notes = [of_studies], []
    if cfg.boxes is not None:
        headers, more, others = _with_boxes(headers, cfg.boxes)
        labels.append(more)
        aside = aside + others
    silent = sorted(set(truth["name"]) - set(names.values()))
    if silent:
        notes.append(f"{len(silent)} studies of reads.csv have no readable image")
    info = SetInfo(dataset="cq500", source=listing.root.resolve(), external=True, notes=tuple(notes))
    about = about_studies(headers, listing.root, names)
    return ImportedSet(info, headers, pl.concat(labels), about, from_rows(aside, QUARANTINE))


def majority(file: Path) -> pl.DataFrame:
    """Read ``reads.csv``: ``name``, and six classes with the answer of two of three readers.

    Null where fewer than two readers agree, because one has not answered.

    Raises:
        UsageError: A column is absent, a study is listed twice, or an answer is not 0 or 1.
    """
    columns = {f"{r}:{c}": f"{r}:{finding}" for r in _READERS for c, finding in _FINDINGS.items()}
    opened = read_columns(file, {"name": "name", **columns})
    said = opened.table.select(ROW, "name").join(answers(opened, columns), on=ROW)
    votes = said.select(
        pl.col("name").str.strip_chars(),
        *(_vote([pl.col(f"{r}:{c}") for r in _READERS]).alias(c) for c in _FINDINGS),
    )
    twice = votes.filter(pl.col("name").is_duplicated())["name"].unique()
    if len(twice):
        raise UsageError(f"{file}: studies are listed twice: {', '.join(twice.sort().head(5))}")
    return votes


def _vote(readers: list[pl.Expr]) -> pl.Expr:
    yes = pl.sum_horizontal(reader == 1 for reader in readers)
    no = pl.sum_horizontal(reader == 0 for reader in readers)
    return pl.when(yes >= _MAJORITY).then(1).when(no >= _MAJORITY).then(0).cast(pl.Int8)


def _names_of(headers: pl.DataFrame) -> dict[str, str]:
    """Name of each study in ``reads.csv``, from its folder or archive, else from its PatientID."""
    found: dict[str, str] = {}
    for study, patient, file in (
        headers.group_by("study").agg(pl.col("patient", "file").first()).sort("study").rows()
    ):
        match = _STUDY.search(file) or _STUDY.search(patient)
        if match:
            found[study] = f"CQ500-CT-{int(match[1])}"
    return found


def _with_boxes(headers: pl.DataFrame, file: Path) -> tuple[pl.DataFrame, pl.DataFrame, Rows]:
    """Keep the series with boxes of each study: headers, LABELS of slices, rows of QUARANTINE."""
    wanted = {"slice": "SOPInstanceUID", "series": "SeriesInstanceUID", "kind": "labelName"}
    opened = read_columns(file, wanted)
    boxes = opened.table.select(**{ours: pl.col(name).str.strip_chars() for ours, name in wanted.items()})
    kinds = {plain_name(name): c for c, name in _BOXES.items()} | {_CHRONIC: _CHRONIC}
    boxes = boxes.with_columns(
        kind=pl.col("kind").fill_null("").map_elements(plain_name, return_dtype=pl.String)
    )
    odd = boxes.filter(~pl.col("kind").is_in(list(kinds)))["kind"].unique().sort()
    if len(odd):
        raise UsageError(f"{file}: unknown kinds of boxes: {', '.join(odd.head(5))}")
    boxes = boxes.with_columns(kind=pl.col("kind").replace_strict(kinds))
    with_box = headers.filter(pl.col("series").is_in(boxes["series"].unique().implode()))
    if with_box.is_empty():
        raise UsageError(f"{file}: none of its series is among the images; is it a CSV of BHX?")
    # of several series with boxes in one study the one with most slices is read
    best = with_box.group_by("study", "series").len().sort("len", "series", descending=[True, False])
    best = best.unique("study", keep="first", maintain_order=True)
    marked = headers.join(best.select("study", best="series"), on="study", how="left", maintain_order="left")
    other = pl.col("best").is_not_null() & (pl.col("series") != pl.col("best"))
    kept = marked.filter(~other)
    labelled = kept.filter(pl.col("best").is_not_null()).select("study", "slice")
    return (
        kept.drop("best"),
        _box_labels(labelled, boxes),
        [_not_boxed(r) for r in marked.filter(other).to_dicts()],
    )


def _box_labels(slices: pl.DataFrame, boxes: pl.DataFrame) -> pl.DataFrame:
    """LABELS of slices of series with boxes: 1 for types with a box, 0 for others."""
    said = boxes.group_by("slice").agg(*((pl.col("kind") == c).any().alias(c) for c in (*_BOXES, _CHRONIC)))
    table = slices.join(said, on="slice", how="left", maintain_order="left")
    old = pl.col(_CHRONIC).fill_null(value=False)
    table = table.with_columns(
        pl.when(pl.col(c).fill_null(value=False)).then(1).when(~old).then(0).cast(pl.Int8).alias(c)
        for c in _BOXES
    )
    return label_rows(table.drop(_CHRONIC), "slice") if len(table) else pl.DataFrame(schema=dict(LABELS))


def _not_boxed(row: dict[str, object]) -> dict[str, object]:
    known = {"study": row["study"], "slice": row["slice"], "z_mm": None}
    detail = f"{row['series']}: another series of the study has boxes"
    return {
        "file": row["file"],
        "action": str(Action.SKIPPED),
        "reason": str(Reason.OTHER_SERIES),
        "detail": detail,
    } | known
