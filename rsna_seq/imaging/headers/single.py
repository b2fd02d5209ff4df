"""Read the headers of one DICOM file: a slice, or the frames of a multi-frame object, or a typed reason.

A typical CT slice has one frame. An enhanced multi-frame object (DICOM PS3.3 A.38) gives one header per
frame; its geometry and rescale are in the functional groups, where per-frame groups override shared groups.
"""

import math
import warnings
from decimal import Decimal
from typing import Any

from pydicom._uid_dict import UID_dictionary
from pydicom.config import disable_value_validation
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

from rsna_seq.imaging.headers.elements import Parsed, parse
from rsna_seq.imaging.headers.fields import (
    FIELDS,
    SHORTS,
    TEXTS,
    Header,
    Values,
    cross,
    integer,
    orientation,
    position,
)
from rsna_seq.imaging.headers.frame import CAPTURE, CT_CLASSES, header_of, with_pixels
from rsna_seq.imaging.nifti import is_nifti, read_nifti_headers
from rsna_seq.reasons import Action, ExclusionError, Reason


def read_headers(path: str, assume_hu: bool = False) -> list[Header]:
    """Read the header of a CT image: one slice, every frame of a multi-frame object, or a NIfTI volume.

    Args:
        path: A file, or a member of an archive (``studies.zip!/slice.dcm``).
        assume_hu: Use stored values as HU if there is no rescale.

    Raises:
        ExclusionError: The file is not a readable CT image.
    """
    if is_nifti(path):
        return read_nifti_headers(path, assume_hu)
    parsed = parse(path)
    values = texts(parsed.dataset)
    try:
        _must_be_an_image(values, parsed)
        _must_be_ct(values, parsed)
        if integer(values, "NumberOfFrames") > 1 or "PerFrameFunctionalGroupsSequence" in parsed.dataset:
            return _frames(parsed, values, assume_hu=assume_hu)
        if "ModalityLUTSequence" in parsed.dataset and not values.get("RescaleSlope"):
            raise ExclusionError(Reason.MODALITY_LUT)  # noqa: TRY301
        return [with_pixels(header_of(values, parsed.syntax, assume_hu=assume_hu), parsed, frames=1)]
    except ExclusionError as error:
        error.study, error.slice = values.get("StudyInstanceUID"), values.get("SOPInstanceUID")
        error.z_mm = _place(position(values), orientation(values))
        raise


def texts(dataset: Dataset) -> dict[str, str]:
    """Elements as text by keyword; multiple values are joined with a backslash, empty ones are omitted."""
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        found = {keyword: _text(dataset, keyword) for keyword in (*TEXTS, *SHORTS)}
    return {keyword: text for keyword, text in found.items() if text}


def _text(dataset: Dataset, keyword: str) -> str | None:
    """An element as text; None if it is absent, cannot be converted, or is a sequence or bytes."""
    try:
        value: Any = dataset.get(keyword)
    except Exception:  # a damaged element may raise any exception
        return None
    values = list(value) if isinstance(value, MultiValue) else [value]
    if not all(isinstance(v, (str, int, float, Decimal, PersonName)) for v in values):
        return None
    parts = [str(v) for v in values]
    # invalid text, such as a lone surrogate, is replaced: tables contain UTF-8
    return "\\".join(part.strip(" \0") for part in parts).encode(errors="replace").decode()


def _must_be_an_image(values: Values, parsed: Parsed) -> None:
    """Refuse valid objects without an image: palettes, lookup tables, presentation states, raw data."""
    if parsed.pixels is not None or {"Rows", "Columns"} & set(values):
        return
    kind = values.get("SOPClassUID", "")
    if (kind and kind not in CT_CLASSES) or _reaches(parsed, "Rows"):
        raise ExclusionError(Reason.NOT_AN_IMAGE, _name_of(kind), action=Action.SKIPPED)


def _must_be_ct(values: Values, parsed: Parsed) -> None:
    """Refuse other modalities, images without pixels, and truncated headers."""
    modality, kind = values.get("Modality", ""), values.get("SOPClassUID", "")
    if modality and modality != "CT":
        raise ExclusionError(Reason.NOT_CT, modality[:16], action=Action.SKIPPED)
    if kind.startswith(CAPTURE):
        raise ExclusionError(Reason.DERIVED_IMAGE, "secondary capture", action=Action.SKIPPED)
    if not modality and kind and kind not in CT_CLASSES:
        raise ExclusionError(Reason.NOT_CT, _name_of(kind), action=Action.SKIPPED)
    for name in ("SOPInstanceUID", "StudyInstanceUID"):
        if not values.get(name):
            reason = Reason.NO_UID if _reaches(parsed, name) else Reason.HEADER_TRUNCATED
            raise ExclusionError(reason, f"no {name}")
    if parsed.pixels is None:
        cut = not {"Rows", "Columns"} <= set(values) and not _reaches(parsed, "Columns")
        raise ExclusionError(Reason.HEADER_TRUNCATED if cut else Reason.PIXELS_MISSING)


def _reaches(parsed: Parsed, keyword: str) -> bool:
    """Whether the header continues after a tag (tags increase), so that the element is not just truncated."""
    return parsed.pixels is not None or max(parsed.dataset.keys(), default=0) >= (
        tag_for_keyword(keyword) or 0
    )


def _name_of(kind: str) -> str:
    """Name of a SOP class in the standard; the UID if it is unknown."""
    return UID_dictionary[kind][0] if kind in UID_dictionary else kind[:64]


def _frames(parsed: Parsed, values: Values, *, assume_hu: bool) -> list[Header]:
    """Return one header per frame of an enhanced multi-frame object."""
    count = max(1, integer(values, "NumberOfFrames"))
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            own = list(parsed.dataset.get("PerFrameFunctionalGroupsSequence") or [])
            shared = list(parsed.dataset.get("SharedFunctionalGroupsSequence") or [])
            each = [_grouped([group, *shared]) for group in own]
    except RecursionError as error:
        raise ExclusionError(Reason.NESTED_TOO_DEEP) from error
    except Exception as error:  # a damaged sequence may raise any exception
        raise ExclusionError(Reason.HEADER_INVALID, type(error).__name__) from error
    if len(each) != count:
        raise ExclusionError(Reason.MULTI_FRAME, f"{count:,} frames, {len(each):,} with a position")
    headers = []
    for frame, group in enumerate(each):
        elements = {**values, **group}
        elements["SOPInstanceUID"] = f"{values['SOPInstanceUID']}#{frame + 1}"
        elements["InstanceNumber"] = str(frame + 1)
        header = header_of(elements, parsed.syntax, assume_hu=assume_hu, frame=frame)
        headers.append(with_pixels(header, parsed, frames=count))
    return headers


def _grouped(groups: list[Dataset]) -> dict[str, str]:
    """Elements from the functional groups of a frame; the first group with an element is used."""
    found: dict[str, str] = {}
    for field in (field for field in FIELDS if field.group):
        for group in groups:
            items = group.get(field.group)
            text = _text(items[0], field.group_keyword or field.keyword) if items else None
            if text and field.keyword not in found:
                found[field.keyword] = text
    return found


def _place(position: tuple[float, ...] | None, orientation: tuple[float, ...] | None) -> float | None:
    """Position of a slice along its normal, in mm; ``geometry.place`` does the same for whole tables."""
    if position is None or orientation is None:
        return position[2] if position else None
    normal = cross(orientation)
    along: float = sum(n * p for n, p in zip(normal, position, strict=True)) / math.hypot(*normal)
    return round(-along if normal[2] < 0 else along, 3)
