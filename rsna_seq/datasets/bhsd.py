"""BHSD (Wu et al., MLMI 2023): NIfTI volumes with masks of five types, from which labels of slices are made.

The volumes were cut from the RSNA set: a file is called ``PATIENT_STUDY.nii.gz`` with the PatientID and the
StudyInstanceUID of RSNA. Patients keep these names, so that folds and evaluations recognise them, and the set
is never external data for a network that was trained on the RSNA set.
"""

import re
from pathlib import Path, PurePosixPath

import polars as pl

from rsna_seq.config import ImportConfig
from rsna_seq.datasets.files import ReadHeaders, about_studies, part_of
from rsna_seq.datasets.imported import LABELS, ImportedSet, SetInfo, label_rows
from rsna_seq.errors import UsageError
from rsna_seq.imaging.nifti import is_nifti, mask_values, must_have_nibabel, stem_of
from rsna_seq.imaging.sources import list_files
from rsna_seq.reasons import ExclusionError
from rsna_seq.store.tables import QUARANTINE, from_rows

_VALUES = {1: "epidural", 2: "intraparenchymal", 3: "intraventricular", 4: "subarachnoid", 5: "subdural"}
"""Types of the values of a mask, as the set's description states them."""
_IMAGES, _MASKS = "images", ("ground truths", "ground_truths", "labels", "masks")
_NAME = re.compile(r"(ID_[0-9a-f]+)_(ID_[0-9a-f]+)", re.IGNORECASE)


def read_bhsd(source: Path, read: ReadHeaders, _cfg: ImportConfig) -> ImportedSet:
    """Read BHSD.

    Args:
        source: Folder with ``images/`` and ``ground truths/``, or with ``label_192/`` that contains both.
        read: Reads headers.

    Raises:
        UsageError: There are no images, or a file name does not name patient and study of RSNA.
        EnvironmentFaultError: nibabel is not installed.
    """
    must_have_nibabel()
    listing = list_files(source)
    volumes = part_of(listing, lambda name: is_nifti(name) and PurePosixPath(name).parent.name == _IMAGES)
    if not len(volumes):
        raise UsageError(f"{source}: no {_IMAGES}/*.nii.gz; is this the folder of BHSD?")
    headers, aside = read(volumes)
    whose = {name: _names(name, source) for name in volumes.names}
    headers = headers.with_columns(
        patient=pl.col("file").replace_strict({f: p for f, (p, _) in whose.items()}),
        study=pl.col("file").replace_strict({f: s for f, (_, s) in whose.items()}),
    )
    headers = headers.with_columns(
        series="study", slice=pl.col("study") + "#" + (pl.col("frame") + 1).cast(pl.String)
    )
    masks = {
        _key(name): name
        for name in listing.names
        if is_nifti(name) and PurePosixPath(name).parent.name in _MASKS
    }
    parts, without = [pl.DataFrame(schema=dict(LABELS))], 0
    for (file,), slices in headers.group_by("file", maintain_order=True):
        mask = masks.get(_key(str(file)))
        without += mask is None
        if mask is not None:
            try:
                found = mask_values(str(listing.root / str(file)), str(listing.root / mask))
            except ExclusionError as error:
                aside.append(error.row(mask))
                continue
            parts.append(_labels(slices, found))
    notes = [f"{without} volumes have no mask and so no labels"] if without else []
    info = SetInfo(
        dataset="bhsd",
        source=listing.root.resolve(),
        external=False,
        derived_from="rsna2019",
        notes=("its volumes were cut from the RSNA set; patients have their names of RSNA", *notes),
    )
    about = about_studies(headers, listing.root, {})
    return ImportedSet(info, headers, pl.concat(parts), about, from_rows(aside, QUARANTINE))


def _key(name: str) -> tuple[str, str]:
    """What an image and its mask have in common: the folder above both, and the name."""
    return str(PurePosixPath(name).parent.parent), stem_of(name)


def _names(file: str, source: Path) -> tuple[str, str]:
    """PatientID and StudyInstanceUID of RSNA of a volume."""
    found = _NAME.fullmatch(stem_of(file))
    if found is None:
        raise UsageError(
            f"{source}: {file}: not named PATIENT_STUDY.nii.gz with identifiers of RSNA (ID_...), so its "
            "patient is unknown; keep the names of the download"
        )
    return found[1], found[2]


def _labels(slices: pl.DataFrame, values: list[frozenset[int]]) -> pl.DataFrame:
    """LABELS of the slices of one volume.

    Args:
        slices: Rows of HEADERS of one file.
        values: Values of the mask in each slice, in stored order.

    Raises:
        UsageError: A mask has a value without a type.
    """
    odd = sorted(set().union(*values) - set(_VALUES))
    if odd:
        raise UsageError(f"{slices['file'][0]}: its mask has the values {odd}; known are 1 to {len(_VALUES)}")
    at = slices["frame"].to_list()
    columns = {c: [int(value in values[k]) for k in at] for value, c in _VALUES.items()}
    return label_rows(
        slices.select("study", "slice").with_columns(
            **{c: pl.Series(v, dtype=pl.Int8) for c, v in columns.items()}
        ),
        "slice",
    )
