"""Why a file, a series or a study was set aside: one typed set, each with the sentence a user reads."""

from collections.abc import Sequence
from enum import StrEnum


class Action(StrEnum):
    """What was done with an input that is not read."""

    QUARANTINED = "quarantined"
    """It should have been readable and is not."""
    SKIPPED = "skipped"
    """It is sound, but not what this package reads."""
    MERGED = "merged"
    """It is a second copy of something already read."""


class Reason(StrEnum):
    """Reason codes of ``quarantine.parquet``."""

    EMPTY_FILE = "empty_file"
    NOT_DICOM = "not_dicom"
    UNREADABLE_FILE = "unreadable_file"
    BAD_NAME = "bad_name"
    BAD_TIME = "bad_time"
    BAD_ARCHIVE = "bad_archive"
    BAD_MEMBER = "bad_member"
    FILE_CHANGED = "file_changed"
    HEADER_TRUNCATED = "header_truncated"
    HEADER_INVALID = "header_invalid"
    PIXELS_MISSING = "pixels_missing"
    PIXELS_TRUNCATED = "pixels_truncated"
    PIXELS_UNDECODABLE = "pixels_undecodable"
    LENGTH_OVERRUN = "length_overrun"
    NESTED_TOO_DEEP = "nested_too_deep"
    INFLATES_TOO_FAR = "inflates_too_far"
    BAD_DIMENSIONS = "bad_dimensions"
    BAD_PIXEL_FORMAT = "bad_pixel_format"
    FRAME_IMPLAUSIBLE = "frame_implausible"
    MULTI_FRAME = "multi_frame"
    NO_RESCALE = "no_rescale"
    BAD_RESCALE = "bad_rescale"
    NOT_HU = "not_hu"
    MODALITY_LUT = "modality_lut"
    IMPLAUSIBLE_HU = "implausible_hu"
    NO_UID = "no_uid"
    NO_PLACE = "no_place"
    DUPLICATE_UID = "duplicate_uid"
    DUPLICATE_FILE = "duplicate_file"
    LOCALIZER = "localizer"
    NOT_AXIAL = "not_axial"
    NOT_CT = "not_ct"
    NOT_AN_IMAGE = "not_an_image"
    DERIVED_IMAGE = "derived_image"
    OTHER_SERIES = "other_series"
    MIXED_PATIENTS = "mixed_patients"
    DICOMDIR = "dicomdir"
    LINK = "link"
    WORKER_DIED = "worker_died"
    DECODE_TIMEOUT = "decode_timeout"
    BAD_RESULT = "bad_result"

    @property
    def sentence(self) -> str:
        """The reason in words."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.EMPTY_FILE: "the file is empty",
    Reason.NOT_DICOM: "not a DICOM file",
    Reason.UNREADABLE_FILE: "the file cannot be opened",
    Reason.BAD_NAME: "the file's name is not UTF-8 or holds control characters; rename it",
    Reason.BAD_TIME: "the file was last changed before 1678 or after 2261; `touch` it",
    Reason.BAD_ARCHIVE: "the zip file is damaged",
    Reason.BAD_MEMBER: "this member of a zip file is damaged",
    Reason.FILE_CHANGED: "the file changed while it was read",
    Reason.HEADER_TRUNCATED: "the header is cut short",
    Reason.HEADER_INVALID: "the header cannot be parsed",
    Reason.PIXELS_MISSING: "an image without pixel data",
    Reason.PIXELS_TRUNCATED: "the pixel data is cut short",
    Reason.PIXELS_UNDECODABLE: "the pixel data cannot be decoded",
    Reason.LENGTH_OVERRUN: "an element claims to reach beyond the end of the file",
    Reason.NESTED_TOO_DEEP: "sequences are nested deeper than any real header",
    Reason.INFLATES_TOO_FAR: "a deflated file grows beyond all measure",
    Reason.BAD_DIMENSIONS: "rows or columns are zero or absurd",
    Reason.BAD_PIXEL_FORMAT: "not 16-bit monochrome pixels",
    Reason.FRAME_IMPLAUSIBLE: "the file is far too small for the rows and columns that its header declares",
    Reason.MULTI_FRAME: "several frames in one object, without a position for each",
    Reason.NO_RESCALE: "no rescale, so HU are unknown (index.assume_hu=true takes stored values as HU)",
    Reason.BAD_RESCALE: "the rescale slope or intercept is zero or absurd",
    Reason.NOT_HU: "the rescale leads to another unit than Hounsfield units (RescaleType)",
    Reason.MODALITY_LUT: "a modality look-up table in place of a rescale, which is not read",
    Reason.IMPLAUSIBLE_HU: "the pixels are not in the range of Hounsfield units",
    Reason.NO_UID: "an image without SOPInstanceUID or StudyInstanceUID",
    Reason.NO_PLACE: "no usable position or orientation, among slices of its series that have one",
    Reason.DUPLICATE_UID: "two different images share one SOPInstanceUID",
    Reason.DUPLICATE_FILE: "a second copy of the same image",
    Reason.LOCALIZER: "a localizer (scout) image",
    Reason.NOT_AXIAL: "not an axial image",
    Reason.NOT_CT: "another modality than CT",
    Reason.NOT_AN_IMAGE: "a DICOM object without an image",
    Reason.DERIVED_IMAGE: "a secondary capture or derived image",
    Reason.OTHER_SERIES: "another series of the study is read",
    Reason.MIXED_PATIENTS: "one StudyInstanceUID holds two patients",
    Reason.DICOMDIR: "a directory of files, never followed",
    Reason.LINK: "a link, never followed",
    Reason.WORKER_DIED: "the decoder crashed on this file",
    Reason.DECODE_TIMEOUT: "the decoder did not finish in time",
    Reason.BAD_RESULT: "the networks gave no probability between 0 and 1",
}


_FLAGS = {
    "no_position": "ordered by SliceLocation or InstanceNumber, for want of a position",
    "interpolated": "with slices without a position, placed between their neighbours by InstanceNumber",
    "overlap": "with slices closer than half their usual gap; neighbours are taken at least that far away",
    "gap": "with gaps of nearly twice the spacing or more; neighbours are found in mm",
    "contrast": "with contrast agent, which is bright as blood is",
    "lossy": "once compressed with loss",
    "wrap_suspected": "whose header allows for a 12-bit wrap; it is corrected only where pixels prove it",
}
"""Flags of a study that a user is told of, in words."""


def flag_sentences(flags: Sequence[str]) -> list[str]:
    """Lines for a user on what was accepted, but is unusual.

    Args:
        flags: The flags of each study, comma-separated.
    """
    counts = {word: sum(word in each.split(",") for each in flags) for word in _FLAGS}
    return [f"{n:,} {'study' if n == 1 else 'studies'} {_FLAGS[word]}" for word, n in counts.items() if n]


class ExclusionError(Exception):
    """A file is not read, for a typed reason; what its header still told comes along."""

    def __init__(self, reason: Reason, detail: str = "", *, action: Action = Action.QUARANTINED) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.action = reason, detail, action
        self.study: str | None = None
        self.slice: str | None = None
        self.z_mm: float | None = None

    def row(self, file: str) -> dict[str, object]:
        """The row of ``quarantine.parquet``."""
        return {
            "file": file,
            "action": str(self.action),
            "reason": str(self.reason),
            "detail": self.detail,
            "study": self.study,
            "slice": self.slice,
            "z_mm": self.z_mm,
        }
