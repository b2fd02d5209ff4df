"""The source of a DICOM result: patient and study of the input, and the key images that results refer to.

Values are taken from the headers of the key images. Where a value cannot be written into a valid object, it
is replaced or left out, and a note says so.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.config import RAISE, disable_value_validation
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, TM, validate_value

from rsna_seq.clinic.identifiers import is_valid_uid, valid_uid
from rsna_seq.clinic.results import KeyImage, Study
from rsna_seq.imaging.headers.elements import parse
from rsna_seq.imaging.headers.frame import CT_CLASSES
from rsna_seq.reasons import ExclusionError, Reason

_REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
"""Elements of type 2: present, and empty where the source has none."""
_OPTIONAL = (
    *("IssuerOfPatientID", "OtherPatientIDs", "EthnicGroup", "PatientComments"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "LongitudinalTemporalInformationModified"),
    *("StudyDescription", "PatientAge", "PatientSize", "PatientWeight"),
)
"""Further elements of Patient, General Study and Patient Study (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2)."""
_STRICT = frozenset({"DA", "TM", "AS", "DS", "CS"})
"""Kinds of value that must be valid; invalid text of other kinds, such as one that is too long, is copied."""
_SEXES = {"", "M", "F", "O"}
_DATES = (
    *(("StudyDate", "StudyTime"), ("SeriesDate", "SeriesTime")),
    *(("AcquisitionDate", "AcquisitionTime"), ("ContentDate", "ContentTime")),
)
_NO_DATE = ("19700101", "000000")
"""Date and time of results whose source has no date."""
_CT = "1.2.840.10008.5.1.4.1.1.2"
_ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"


@dataclass(frozen=True)
class Source:
    """What the DICOM results of a study take from their source.

    Attributes:
        images: Headers of the key images by slice, as highdicom expects them: patient, study, valid UIDs.
        frames: Frame number of each slice, from 1; None for single-frame images.
        date: Date of the results, YYYYMMDD: that of the source, so that the same input gives the same bytes.
        time: Time of the results, HHMMSS.
        notes: What was replaced or left out.
    """

    images: Mapping[str, Dataset]
    frames: Mapping[str, int | None]
    date: str
    time: str
    notes: tuple[str, ...]

    @property
    def first(self) -> Dataset:
        """One of the headers, from which patient and study are taken."""
        return next(iter(self.images.values()))


def replaced_uids(study: str, images: Sequence[KeyImage]) -> dict[str, str]:
    """Identifiers of a study and its key images that are not valid UIDs, and the UIDs that replace them.

    Args:
        study: StudyInstanceUID.
        images: The key images.
    """
    named = [study, *(name for image in images for name in (image.series, _instance(image.slice)))]
    return {name: valid_uid(name) for name in named if not is_valid_uid(name)}


def read_source(root: Path, study: Study) -> Source:
    """Read the headers of the key images of a study.

    Args:
        root: Folder that files are relative to.
        study: The result.

    Raises:
        ExclusionError: A file cannot be read any more, or is of a class that no CT image has.
    """
    images: dict[str, Dataset] = {}
    frames: dict[str, int | None] = {}
    notes: dict[str, None] = {}
    date = _NO_DATE
    for key in (found.key_image for found in study.findings.values()):
        if key.slice in images:
            continue
        with disable_value_validation():
            header = parse(str(root / key.file)).dataset
            frames[key.slice] = _frame(key.slice, header)
            images[key.slice] = _evidence(study.study, key, header, frames[key.slice], notes)
            date = date if date != _NO_DATE else _date(header)
    notes |= dict.fromkeys(f"{old!r} is not a valid UID; {new} is used" for old, new in _named(study))
    if date == _NO_DATE:
        notes["the source has no date; results are dated 1970-01-01"] = None
    return Source(images, frames, *date, tuple(notes))


def to_bytes(made: Dataset) -> bytes:
    """A DICOM file as bytes (PS3.10)."""
    buffer = io.BytesIO()
    with disable_value_validation():  # text of the source that is too long is copied, not cut
        made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _named(study: Study) -> list[tuple[str, str]]:
    return sorted(study.replaced_uids.items())


def _instance(name: str) -> str:
    """SOPInstanceUID of a slice, without its frame."""
    return re.sub(r"#\d+$", "", name)


def _frame(name: str, header: Dataset) -> int | None:
    """Frame number of a slice, from 1; None for a single-frame image."""
    found = re.search(r"#(\d+)$", name)
    many = "PerFrameFunctionalGroupsSequence" in header or "NumberOfFrames" in header
    return int(found[1]) if found and many else None


def _evidence(
    study: str, key: KeyImage, header: Dataset, frame: int | None, notes: dict[str, None]
) -> Dataset:
    """The header of a key image with what results refer to or copy."""
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID = _class_of(header, frame, notes)
    made.SOPInstanceUID = valid_uid(key.slice if frame is None else _instance(key.slice))
    made.SeriesInstanceUID = valid_uid(key.series)
    made.StudyInstanceUID = valid_uid(study)
    made.Rows, made.Columns = 1, 1  # tells highdicom that the object is an image; not copied
    for keyword in (*_REQUIRED, *_OPTIONAL):
        text = _text(header, keyword)
        if text and not _is_writable(keyword, text):
            notes[f"{keyword} of the source is not valid and left out"] = None
            text = ""
        if text or keyword in _REQUIRED:
            setattr(made, keyword, text)
    if "DeidentificationMethodCodeSequence" in header:
        made.DeidentificationMethodCodeSequence = header.DeidentificationMethodCodeSequence
    directions = _text(header, "ImageOrientationPatient").split("\\")
    if len(directions) == 6:
        made.ImageOrientationPatient = directions
    return made


def _class_of(header: Dataset, frame: int | None, notes: dict[str, None]) -> str:
    """SOPClassUID of a source; the usual one if it is absent."""
    found = _text(header, "SOPClassUID")
    if not found:
        notes["the source has no SOPClassUID; it is referred to as a CT image"] = None
        return _CT if frame is None else _ENHANCED_CT
    if found not in CT_CLASSES:
        raise ExclusionError(
            Reason.NOT_CT, f"SOPClassUID {found[:64]}: DICOM results refer to CT image classes only"
        )
    return found


def _text(header: Dataset, keyword: str) -> str:
    """An element as text, values joined with backslashes; empty if it is absent or cannot be converted."""
    try:
        value: Any = header.get(keyword)
        values = value if isinstance(value, (list, MultiValue)) else [value]
        text = "\\".join("" if v is None else str(v) for v in values)
    except Exception:  # a damaged element may raise any exception
        return ""
    return text.strip(" \0").encode(errors="replace").decode()


def _is_writable(keyword: str, text: str) -> bool:
    """Whether a value can be written into a valid object."""
    kind = dictionary_VR(keyword)
    if keyword == "PatientSex":
        return text in _SEXES
    if kind not in _STRICT:
        return True
    try:
        validate_value(kind, text, RAISE)
        return bool({"DA": DA, "TM": TM}.get(kind, str)(text))
    except (ValueError, TypeError):
        return False


def _date(header: Dataset) -> tuple[str, str]:
    """Date and time of a source, from the first pair of elements that has a date."""
    for day, hour in _DATES:
        date, time = _text(header, day), _text(header, hour)
        if date and _is_writable(day, date):
            usable = time and _is_writable(hour, time)
            return date, time.split(".")[0].ljust(6, "0") if usable else _NO_DATE[1]
    return _NO_DATE
