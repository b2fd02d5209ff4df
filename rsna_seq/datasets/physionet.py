"""PhysioNet ct-ich (Hssayeni et al., Data 2020): NIfTI of version 1.3, or JPEG images of version 1.2.

Labels are of slices, by number: ``SliceNumber`` 1 is the first slice of the NIfTI file, or ``1.jpg``. The
NIfTI files are in HU. The JPEG images are two windows, from which HU are recovered as
:mod:`rsna_seq.imaging.jpeg_windows` says; they have no position, so 5 mm between slices are assumed, which is
what the description of the set states.
"""

import csv
import io
import re
from pathlib import Path, PurePosixPath

import polars as pl

from rsna_seq.config import ImportConfig
from rsna_seq.datasets.answers import answers, read_columns
from rsna_seq.datasets.csv_file import ROW
from rsna_seq.datasets.files import ReadHeaders, Rows, about_studies, part_of, the_file
from rsna_seq.datasets.imported import ABOUT, ImportedSet, SetInfo, label_rows
from rsna_seq.errors import UsageError
from rsna_seq.imaging.headers.fields import HEADERS
from rsna_seq.imaging.jpeg_windows import read_jpeg_header
from rsna_seq.imaging.nifti import is_nifti, must_have_nibabel, stem_of
from rsna_seq.imaging.sources import Listing, list_files
from rsna_seq.reasons import ExclusionError
from rsna_seq.store.tables import QUARANTINE, from_rows

_TABLES = ("hemorrhage_diagnosis_raw_ct.csv", "hemorrhage_diagnosis.csv")
_TYPES = {
    "intraventricular": "Intraventricular",
    "intraparenchymal": "Intraparenchymal",
    "subarachnoid": "Subarachnoid",
    "epidural": "Epidural",
    "subdural": "Subdural",
}
_NONE = "No_Hemorrhage"
_SLICE = re.compile(r"(?:^|/)(\d{1,4})/brain/(\d{1,4})\.jpe?g$", re.IGNORECASE)
_SCANS = "ct_scans"
_SPACING_MM = 5.0
_JPEG_NOTE = (
    "HU are recovered from two 8-bit windows: steps of 0.5 HU from -20 to 100 HU, of 12.5 HU elsewhere, with "
    "errors of JPEG compression; positions are assumed, 5 mm apart"
)


def read_physionet(source: Path, read: ReadHeaders, cfg: ImportConfig) -> ImportedSet:
    """Read ct-ich.

    Args:
        source: Folder with the label CSV and ``ct_scans/NNN.nii`` (1.3) or ``NNN/brain/N.jpg`` (1.2).
        read: Reads headers.
        cfg: ``labels`` replaces the label CSV.

    Raises:
        UsageError: There are no images or labels, or the CSV is malformed.
        EnvironmentFaultError: The images are NIfTI, and nibabel is not installed.
    """
    truth, notes = _labels(cfg.labels or the_file(source, _TABLES, "labels of slices"))
    listing = list_files(source)
    scans = part_of(listing, _is_scan)
    if len(scans):
        must_have_nibabel()
        headers, aside = read(scans)
        headers = headers.with_columns(_renamed(), number=(pl.col("frame") + 1).cast(pl.Int64))
        headers = headers.with_columns(series="study", patient="study", slice=_slice_name())
    else:
        headers, aside = _jpeg_headers(part_of(listing, lambda name: _SLICE.search(name) is not None))
        notes.append(_JPEG_NOTE)
    if headers.is_empty() and not aside:
        raise UsageError(
            f"{source}: neither {_SCANS}/NNN.nii nor NNN/brain/N.jpg; is this the folder of ct-ich?"
        )
    truth = truth.with_columns(
        study=_study_name(pl.col("number_of_patient")), number=pl.col("number_of_slice")
    )
    labels = truth.join(
        headers.select("study", "number", "slice"), on=["study", "number"], how="inner", maintain_order="left"
    )
    imaged = truth.join(headers, on="study", how="semi")
    silent = truth["study"].n_unique() - imaged["study"].n_unique()
    if silent:
        notes.append(f"{silent} studies of the label CSV have no readable image")
    lost = len(imaged) - len(labels)
    if lost:
        notes.append(f"{lost} rows of the label CSV name slices that are not there")
    info = SetInfo(dataset="physionet", source=listing.root.resolve(), external=True, notes=tuple(notes))
    about = _about(headers, source, listing.root)
    return ImportedSet(info, headers, label_rows(labels, "slice"), about, from_rows(aside, QUARANTINE))


def _is_scan(name: str) -> bool:
    return is_nifti(name) and PurePosixPath(name).parent.name == _SCANS and stem_of(name).isdigit()


def _study_name(number: pl.Expr) -> pl.Expr:
    return pl.lit("ct-ich-") + number.cast(pl.Int64).cast(pl.String).str.zfill(3)


def _renamed() -> pl.Expr:
    """``study`` from the file name, which is the number of the patient."""
    return _study_name(pl.col("file").str.extract(r"(\d+)\.nii(?:\.gz)?$")).alias("study")


def _slice_name() -> pl.Expr:
    return pl.col("study") + "#" + (pl.col("frame") + 1).cast(pl.String)


def _labels(file: Path) -> tuple[pl.DataFrame, list[str]]:
    """Number of patient and slice, and the six classes; and notes."""
    keys = {"number_of_patient": "PatientNumber", "number_of_slice": "SliceNumber"}
    opened = read_columns(file, {**keys, **_TYPES, "none": _NONE})
    numbers = opened.table.select(
        ROW,
        **{
            ours: pl.col(name).str.strip_chars().cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)
            for ours, name in keys.items()
        },
    )
    bad = numbers.filter(pl.any_horizontal(pl.col(c).is_null() for c in keys))
    if len(bad):
        lines = opened.lines(bad[ROW].head(3).to_list())
        raise UsageError(
            f"{file}: {len(bad):,} rows have no number of patient or slice: lines {sorted(lines.values())}"
        )
    said = answers(opened, {**_TYPES, "none": _NONE})
    clash = len(said.filter((pl.col("none") == 1) & (pl.max_horizontal(list(_TYPES)) == 1)))
    notes = [f"{clash} slices have {_NONE} = 1 and a type = 1; they count as haemorrhage"] if clash else []
    said = said.with_columns(any=(1 - pl.col("none")).cast(pl.Int8)).drop("none")
    said = said.with_columns(any=pl.max_horizontal("any", *_TYPES))
    return numbers.join(said, on=ROW).drop(ROW), notes


def _jpeg_headers(listing: Listing) -> tuple[pl.DataFrame, Rows]:
    """Headers of JPEG slices, and rows of QUARANTINE."""
    rows, aside = [], list(listing.aside)
    for at, name in enumerate(listing.names):
        found = _SLICE.search(name)
        assert found is not None
        study, number = f"ct-ich-{int(found[1]):03d}", int(found[2])
        try:
            header = listing.read(at, read_jpeg_header)
        except ExclusionError as error:
            aside.append(error.row(name) | {"study": study})
            continue
        header |= {
            "study": study,
            "series": study,
            "patient": study,
            "slice": f"{study}#{number}",
            "number": number,
        }
        header |= {"location": _SPACING_MM * number, "file": name}
        header |= {"file_size": listing.sizes[at], "file_mtime_ns": listing.mtimes_ns[at]}
        rows.append(header)
    return from_rows(rows, HEADERS), aside


def _about(headers: pl.DataFrame, source: Path, root: Path) -> pl.DataFrame:
    """ABOUT, with age and sex of the demographics, whose first columns are patient, age and sex."""
    about = about_studies(headers, root, {})
    try:
        file = the_file(source, ("patient_demographics.csv",), "demographics")
    except UsageError:
        return about
    text = io.StringIO(file.read_text(encoding="utf-8-sig", errors="replace"), newline="")
    said = {}
    for cells in csv.reader(text):  # the header has line breaks and differs between versions
        if len(cells) > 2 and cells[0].strip().isdigit():
            sex = cells[2].strip()[:1].upper()
            said[f"ct-ich-{int(cells[0]):03d}"] = (_number(cells[1]), sex if sex in {"M", "F"} else None)
    return about.with_columns(
        pl.Series("age", [said.get(s, (None, None))[0] for s in about["study"]], ABOUT["age"]),
        pl.Series("sex", [said.get(s, (None, None))[1] for s in about["study"]], ABOUT["sex"]),
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
