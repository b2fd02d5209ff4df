"""Colour Secondary Captures of the key slices, for viewers that show neither reports nor key objects.

Each image shows one key slice in the brain and the subdural window, below it the classes with their
probabilities, and the notices in red. Letters mark the sides of the patient.
"""

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rsna_seq.clinic.equipment import common, finish, model_name, notes, statements
from rsna_seq.clinic.key_objects import stated
from rsna_seq.clinic.results import Finding, KeyImage, Results, Study
from rsna_seq.clinic.sources import Source
from rsna_seq.imaging.windows import WINDOWS, apply_window
from rsna_seq.labels import COLOURS

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SIDE = 512
"""Rows and columns of each window, in pixels."""
_LINE, _MARGIN, _LETTERS = 22, 10, 105
"""Height of a line of text and margin in pixels; characters per line."""
_INK, _WARNING = (235, 235, 235), (255, 90, 70)
Colour = tuple[int, int, int]
Pixels = tuple[NDArray[np.int16], tuple[float, float]]
"""(rows, columns) HU, and the distance between rows and between columns in mm."""


def captures(
    results: Results, study: Study, source: Source, read: Callable[[KeyImage], Pixels]
) -> Iterator["Dataset"]:
    """Build one image per key slice that is shown.

    Args:
        results: The prediction that contains the study.
        study: The study.
        source: Its source.
        read: Returns the pixels of a key image.
    """
    by_slice: dict[str, dict[str, Finding]] = {}
    for name, found in study.shown().items():
        by_slice.setdefault(found.key_image.slice, {})[name] = found
    for number, (name, findings) in enumerate(by_slice.items(), start=1):
        key = next(iter(findings.values())).key_image
        edges = _edges(source.images[name].get("ImageOrientationPatient"))
        picture = drawn(*read(key), _lines(results, study, key, findings), edges)
        yield finish(_object(results, study, source, name, picture, number), source)


def _object(
    results: Results, study: Study, source: Source, name: str, picture: NDArray[np.uint8], number: int
) -> "Dataset":
    """The Secondary Capture of a picture, with a reference to the slice that it shows."""
    from highdicom.sc import SCImage
    from pydicom.dataset import Dataset

    image = source.images[name]
    made = SCImage(
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=image.StudyInstanceUID,
        specific_character_set=image.SpecificCharacterSet,
        **common(results, study, source, "captures", number),
    )
    made.copy_patient_and_study_information(image)
    made.PatientOrientation = _orientation(image.get("ImageOrientationPatient"))
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    if source.frames[name] is not None:
        reference.ReferencedFrameNumber = source.frames[name]
    made.SourceImageSequence = [reference]
    made.BodyPartExamined = "HEAD"  # not a paired structure, so that there is no laterality
    made.BurnedInAnnotation = "NO"  # the text on the image does not identify the patient
    made.ImageComments = "\n".join([*statements(results, study), *notes(source)])
    return made


def drawn(
    hu: NDArray[np.int16],
    spacing_mm: tuple[float, float],
    lines: list[tuple[str, Colour]],
    edges: Sequence[str] = (),
) -> NDArray[np.uint8]:
    """Draw a slice in two windows above lines of text.

    Args:
        hu: (rows, columns) HU.
        spacing_mm: Distance between rows and between columns.
        lines: Text and colour of each line.
        edges: The side of the patient at the left and at the top, one letter each; empty if it is unknown.

    Returns:
        (rows, columns, 3) red, green and blue.
    """
    panels = [_panel(apply_window(hu, *WINDOWS[name]), spacing_mm) for name in ("brain", "subdural")]
    for panel in panels:
        for letter, at in zip(edges, ((_MARGIN, _SIDE // 2), (_SIDE // 2, 2 * _MARGIN)), strict=False):
            cv2.putText(panel, letter, at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 1, cv2.LINE_AA)
    foot = np.zeros((2 * _MARGIN + _LINE * len(lines), 2 * _SIDE, 3), dtype=np.uint8)
    for i, (text, colour) in enumerate(lines):
        at = (_MARGIN, _MARGIN + _LINE * i + _LINE // 2 + 4)
        cv2.putText(foot, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
    picture: NDArray[np.uint8] = np.vstack([np.repeat(np.hstack(panels)[..., None], 3, axis=2), foot])
    return picture


def _panel(shown: NDArray[np.float32], spacing_mm: tuple[float, float]) -> NDArray[np.uint8]:
    """A windowed slice, scaled to fit a square with its true proportions."""
    high, wide = shown.shape[0] * spacing_mm[0], shown.shape[1] * spacing_mm[1]
    scale = _SIDE / max(high, wide)
    size = (max(1, round(wide * scale)), max(1, round(high * scale)))
    method = cv2.INTER_AREA if max(shown.shape) > _SIDE else cv2.INTER_LINEAR
    small = cv2.resize(shown, size, interpolation=method)
    square = np.zeros((_SIDE, _SIDE), dtype=np.uint8)
    top, left = (_SIDE - size[1]) // 2, (_SIDE - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = np.rint(small * 255)
    return square


def _lines(
    results: Results, study: Study, key: KeyImage, findings: Mapping[str, Finding]
) -> list[tuple[str, Colour]]:
    """The text below a slice."""
    lines = [(key.place, _INK), ("left: brain window, right: subdural window", _INK)]
    for name, found in findings.items():
        lines.append((stated(name, found), _colour(name)))
    lines.append((f"rsna_seq {results.version}, model {model_name(results)}", _INK))
    for text in statements(results, study):
        lines += [(part, _WARNING) for part in textwrap.wrap(text, _LETTERS)]
    return [(text.encode("ascii", "replace").decode()[:_LETTERS], colour) for text, colour in lines]


def _colour(name: str) -> Colour:
    """Colour of a class, as in the report; ``any`` is dark there and light here."""
    if name == "any":
        return _INK
    red, green, blue = bytes.fromhex(COLOURS[name].removeprefix("#"))
    return red, green, blue


def _edges(directions: Any) -> list[str]:
    """The side of the patient at the left and at the top: opposite to the directions of rows and columns."""
    opposite = dict(zip("LRPAHF", "RLAPFH", strict=True))
    return [opposite[letter] for letter in _orientation(directions)]


def _orientation(directions: Any) -> list[str]:
    """PatientOrientation of axial rows and columns (PS3.3 C.7.6.1.1.1): the main direction of each."""
    if directions is None:
        return []
    cosines = [float(value) for value in directions]
    letters = []
    for way in (cosines[:3], cosines[3:]):
        axis = int(np.argmax(np.abs(way)))
        letters.append(("LR", "PA", "HF")[axis][0 if way[axis] > 0 else 1])
    return letters
