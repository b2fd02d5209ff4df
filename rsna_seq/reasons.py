"""Reason codes of files, series and studies that are not read, each with a sentence for the user."""

from collections.abc import Sequence
from enum import StrEnum


class Action(StrEnum):
    """What was done with an input that is not used."""

    QUARANTINED = "quarantined"
    """The input should be readable, but is not."""
    SKIPPED = "skipped"
    """The input is valid, but of a type that this package does not read."""
    MERGED = "merged"
    """The input is a second copy of an image that was already read."""


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
        """The reason as a sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.EMPTY_FILE: "the file is empty",
    Reason.NOT_DICOM: "not a DICOM file",
    Reason.UNREADABLE_FILE: "the file cannot be opened",
    Reason.BAD_NAME: "the file name is not UTF-8 or contains control characters; rename the file",
    Reason.BAD_TIME: "the modification time is before 1678 or after 2261; run `touch` on the file",
    Reason.BAD_ARCHIVE: "the zip file is corrupt",
    Reason.BAD_MEMBER: "this member of a zip file is corrupt",
    Reason.FILE_CHANGED: "the file changed while it was being read",
    Reason.HEADER_TRUNCATED: "the header is truncated",
    Reason.HEADER_INVALID: "the header cannot be parsed",
    Reason.PIXELS_MISSING: "the image has no pixel data",
    Reason.PIXELS_TRUNCATED: "the pixel data is truncated",
    Reason.PIXELS_UNDECODABLE: "the pixel data cannot be decoded",
    Reason.LENGTH_OVERRUN: "the declared length of an element exceeds the end of the file",
    Reason.NESTED_TOO_DEEP: "sequences are nested too deeply for a valid header",
    Reason.INFLATES_TOO_FAR: "the deflated data set exceeds the size limit when it is inflated",
    Reason.BAD_DIMENSIONS: "the number of rows or columns is zero or implausible",
    Reason.BAD_PIXEL_FORMAT: "the pixels are not 16-bit monochrome",
    Reason.FRAME_IMPLAUSIBLE: "the file is too small for the rows and columns declared in its header",
    Reason.MULTI_FRAME: "a multi-frame object without a position for every frame",
    Reason.NO_RESCALE: "no rescale, so HU are unknown (index.assume_hu=true uses the stored values as HU)",
    Reason.BAD_RESCALE: "the rescale slope or intercept is zero or implausible",
    Reason.NOT_HU: "the rescaled values are not in Hounsfield units (RescaleType)",
    Reason.MODALITY_LUT: "a modality lookup table instead of a rescale, which is not supported",
    Reason.IMPLAUSIBLE_HU: "the pixel values are outside the plausible range of Hounsfield units",
    Reason.NO_UID: "the SOPInstanceUID or the StudyInstanceUID is missing",
    Reason.NO_PLACE: "no usable position or orientation, while other slices of the series have one",
    Reason.DUPLICATE_UID: "two different images share one SOPInstanceUID",
    Reason.DUPLICATE_FILE: "duplicate of an image that was already read",
    Reason.LOCALIZER: "a localizer (scout) image",
    Reason.NOT_AXIAL: "not an axial image",
    Reason.NOT_CT: "the modality is not CT",
    Reason.NOT_AN_IMAGE: "the DICOM object is not an image",
    Reason.DERIVED_IMAGE: "a secondary capture or derived image",
    Reason.OTHER_SERIES: "another series of the study was selected",
    Reason.MIXED_PATIENTS: "two patients share one StudyInstanceUID",
    Reason.DICOMDIR: "a DICOMDIR, whose references are never followed",
    Reason.LINK: "a symbolic link, which is never followed",
    Reason.WORKER_DIED: "the decoder crashed on this file",
    Reason.DECODE_TIMEOUT: "the decoder did not finish in time",
    Reason.BAD_RESULT: "the networks did not return a probability between 0 and 1",
}


_FLAGS = {
    "no_position": "without ImagePositionPatient; slices are ordered by SliceLocation or InstanceNumber",
    "interpolated": "with slices without a position, interpolated from their neighbours by InstanceNumber",
    "overlap": "with overlapping passes or two slices at one position; neighbours are taken further away",
    "gap": "with gaps of nearly twice the spacing or more; neighbours are selected by distance in mm",
    "contrast": "with contrast agent, which can look like blood",
    "lossy": "with lossy compression",
    "wrap_suspected": "whose header allows a 12-bit wrap; it is corrected only if the pixels prove it",
}
"""Flags of a study that are printed for the user, as sentences."""


def flag_sentences(flags: Sequence[str]) -> list[str]:
    """Lines that report inputs that were accepted, but are unusual.

    Args:
        flags: The flags of each study, comma-separated.
    """
    counts = {word: sum(word in each.split(",") for each in flags) for word in _FLAGS}
    return [f"{n:,} {'study' if n == 1 else 'studies'} {_FLAGS[word]}" for word, n in counts.items() if n]


class ExclusionError(Exception):
    """A file is not read, for a typed reason; carries what its header still contained."""

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
