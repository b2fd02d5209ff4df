"""Files of a data set: parts of a listing, and patient and scanner from the first file of each study."""

import re
from array import array
from collections.abc import Callable
from pathlib import Path

import polars as pl

from rsna_seq.datasets.imported import ABOUT
from rsna_seq.errors import UsageError
from rsna_seq.imaging.headers.elements import parse
from rsna_seq.imaging.nifti import is_nifti
from rsna_seq.imaging.sources import Listing
from rsna_seq.reasons import ExclusionError
from rsna_seq.store.tables import from_rows

Rows = list[dict[str, object]]
ReadHeaders = Callable[[Listing], tuple[pl.DataFrame, Rows]]
"""Reads the headers of files: HEADERS, and rows of QUARANTINE."""
_TABLES = (".csv", ".txt", ".md", ".pdf", ".tsv", ".xlsx", ".json")
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}


def part_of(listing: Listing, keep: Callable[[str], bool]) -> Listing:
    """The files of a listing whose names are kept; quarantined entries stay."""
    at = [i for i, name in enumerate(listing.names) if keep(name)]
    return Listing(
        listing.root,
        [listing.names[i] for i in at],
        array("q", (listing.sizes[i] for i in at)),
        array("q", (listing.mtimes_ns[i] for i in at)),
        listing.aside,
    )


def is_image(name: str) -> bool:
    """Whether a file may be an image: not a table or text that belongs to the data set."""
    return not name.lower().endswith(_TABLES)


def the_file(source: Path, names: tuple[str, ...], what: str) -> Path:
    """Find a file of a data set, in its folder or one level below, by any of some names, in any case.

    Raises:
        UsageError: It is not there, or is there more than once.
    """
    wanted = {name.lower() for name in names}
    for pattern in ("*", "*/*"):
        found = sorted(p for p in source.glob(pattern) if p.name.lower() in wanted and p.is_file())
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f"{source}: {what}: found {found[0]} and {found[1]}; give one with imports.labels"
            )
    raise UsageError(f"{source}: {what}: no file {' or '.join(names)}; is this the folder of the data set?")


def about_studies(headers: pl.DataFrame, source: Path, names: dict[str, str]) -> pl.DataFrame:
    """Make ABOUT: age, sex and scanner are read from the first file of each study where it is DICOM.

    Args:
        headers: HEADERS.
        source: Folder that ``file`` is relative to.
        names: Name in the data set by study; the default is the study.
    """
    first = (
        headers.group_by("study", maintain_order=True).agg(pl.col("patient", "file").first()).sort("study")
    )
    rows = [
        {"study": study, "name": names.get(study, study), "patient": patient or study, **_said(source / file)}
        for study, patient, file in first.rows()
    ]
    return from_rows(rows, ABOUT)


def _said(path: Path) -> dict[str, object]:
    if is_nifti(path.name) or path.suffix.lower() in {".jpg", ".jpeg"}:
        return {}
    try:
        dataset = parse(str(path)).dataset
    except ExclusionError:
        return {}
    maker, model = (str(dataset.get(k) or "").strip() for k in ("Manufacturer", "ManufacturerModelName"))
    sex = str(dataset.get("PatientSex") or "").strip().upper()
    return {
        "age": age_of(str(dataset.get("PatientAge") or "")),
        "sex": sex if sex in {"M", "F"} else None,
        "scanner": f"{maker} {model}".strip() or None,
    }


def age_of(text: str) -> float | None:
    """Years of a DICOM age such as ``045Y`` or ``018M``; None if it is none."""
    found = _AGE.fullmatch(text.strip().upper())
    return round(int(found[1]) / _PER_YEAR[found[2]], 2) if found else None
