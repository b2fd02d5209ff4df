"""The results of a prediction as plain data: the schema of ``studies.json``, versioned.

The classes are the schema; ``studies.schema.json`` in this folder is written from them, and a test compares
both. Identifiers are those of the input. Probabilities are those of ``slices.csv`` and ``studies.csv``:
clipped, with eight decimals.
"""

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rsna_seq.errors import IntegrityError
from rsna_seq.scoring.operating_points import OperatingPoint

STUDIES = "studies.json"
"""Name of the file."""
SCHEMA_VERSION: Literal[1] = 1
"""Increases when a program that reads the file must change; added optional fields do not increase it."""
RESEARCH_ONLY = "For research only. Not a medical device, not for clinical use."
"""Notice of every result."""


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class KeyImage(_Plain):
    """The slice with the highest probability of a class in its study."""

    slice: str
    """SOPInstanceUID; ``UID#N`` for frame N of a multi-frame object, from 1."""
    series: str
    """SeriesInstanceUID."""
    file: str
    """Path relative to ``root``."""
    z_mm: float | None
    """Position along the slice normal in mm, rising to the vertex."""
    number: int | None = None
    """InstanceNumber; null if the header has none."""

    @property
    def place(self) -> str:
        """Where it is, in words: ``z 35.0 mm, image 17``, with the frame of a multi-frame object."""
        parts = [] if self.z_mm is None else [f"z {self.z_mm:.1f} mm"]
        parts += [] if self.number is None else [f"image {self.number}"]
        parts += [f"frame {self.slice.rpartition('#')[2]}"] if "#" in self.slice else []
        return ", ".join(parts) or "an unknown position"


class Location(_Plain):
    """Where in the key image the networks found a class: the maximum of the map (``nets.maps``).

    It is no outline and no centre. How often it lies in the haemorrhage was measured on phantoms only.
    """

    column: float
    """Column of the key image in pixels; the centre of the first pixel is 0."""
    row: float
    """Row of the key image in pixels; the centre of the first pixel is 0."""
    x_mm: float | None
    """Distance from the centre of the first pixel along the rows in mm; null without PixelSpacing."""
    y_mm: float | None
    """Distance from the centre of the first pixel along the columns in mm; null without PixelSpacing."""


class Finding(_Plain):
    """One class in one study."""

    probability: float
    """Highest probability of the class over the slices of the study."""
    threshold: float
    """Threshold of the class; ``thresholds`` says where it comes from."""
    above: bool
    """Whether the probability is above the threshold."""
    key_image: KeyImage
    location: Location | None = None
    """Where in the key image; null if the class is not above its threshold and 0.5, or was not located."""
    sensitivity: float | None = None
    """Share of studies with the class that are above the threshold; null if it is not known."""
    specificity: float | None = None
    """Share of studies without the class that are not above the threshold; null if it is not known."""
    ppv: float | None = None
    """Positive predictive value at the prevalence that the user named; null without one."""
    npv: float | None = None
    """Negative predictive value at the prevalence that the user named; null without one."""


class ClassThreshold(_Plain):
    """The threshold of one class."""

    threshold: float
    """A study is above it if its highest probability is."""
    scope: Literal["held_out", "out_of_fold"] | None = None
    """Studies of the run that ``sensitivity`` and ``specificity`` are of; null if they are not known."""
    sensitivity: float | None = None
    specificity: float | None = None
    prevalence: float | None = None
    """Share of studies with the class, as the user named it."""
    ppv: float | None = None
    """Positive predictive value at this prevalence."""
    npv: float | None = None
    """Negative predictive value at this prevalence."""
    point: OperatingPoint | None = None
    """How the threshold was chosen, with counts and intervals; null if it is ``predict.threshold``."""


class Thresholds(_Plain):
    """The thresholds of all classes."""

    operating_point: Literal["youden", "sensitivity95", "fixed"]
    """How they were chosen."""
    note: str
    """The same in words, with the reason if they are fixed."""
    classes: dict[str, ClassThreshold]


class Uncertainty(_Plain):
    """How far the probabilities of a study can be relied on."""

    unlike_training: bool
    """The study is unlike the studies that the model was trained on."""
    unlike_reason: str | None
    """What is unlike; null if nothing is."""
    novelty: float | None
    """Distance from the training studies; the limit is 1. Null if it is not finite."""
    spread: dict[str, float]
    """By class, the standard deviation over the networks of the study's highest probability."""


class Study(_Plain):
    """The result of one study."""

    study: str
    """StudyInstanceUID, as in the input."""
    patient: str
    """PatientID, as in the input."""
    slices: int
    """Number of slices with a probability."""
    excluded: int
    """Number of rows of ``excluded`` that belong to this study."""
    findings: dict[str, Finding]
    """By class: epidural, intraparenchymal, intraventricular, subarachnoid, subdural, any."""
    uncertainty: Uncertainty | None = None
    """Null where the run does not measure it."""
    replaced_uids: dict[str, str] = {}
    """Identifiers of this study and its key images that are not valid UIDs, and the UIDs that DICOM results
    use in their place."""
    seconds: float
    """Time for reading and scoring the study."""

    def shown(self) -> dict[str, Finding]:
        """The findings whose key images are shown: those above the threshold; if there are none, ``any``."""
        above = {name: found for name, found in self.findings.items() if found.above}
        return above or {"any": self.findings["any"]}


class Model(_Plain):
    """A model whose probabilities were used."""

    name: str
    """Name of the bundle, or of the run's folder."""
    version: str
    """Version of rsna_seq that trained it."""
    digest: str
    """Digest of its weights and settings."""
    phantoms_only: bool
    """It was trained on phantoms (synthetic studies) only."""


class Excluded(_Plain):
    """A file, series or study that was not used."""

    file: str
    action: str
    reason: str
    detail: str | None
    study: str | None
    slice: str | None


class Results(_Plain):
    """``studies.json``: the results of one call of ``predict``."""

    schema_version: Literal[1] = SCHEMA_VERSION
    version: str
    """Version of rsna_seq that made the prediction."""
    notices: list[str]
    """What a reader must know, such as that the model has seen phantoms only."""
    models: list[Model]
    """Probabilities are averaged over these."""
    root: str
    """Folder that files are relative to."""
    thresholds: Thresholds | None = None
    """Thresholds of the findings."""
    studies: list[Study]
    """In the order of ``studies.csv``."""
    excluded: list[Excluded]
    """As in ``quarantine.parquet``."""
    seconds: float
    """Time for reading and scoring all studies; headers are read before that."""

    def content(self, study: Study) -> str:
        """Digest of what the DICOM results of a study state; timing and file names are left out."""
        plain = {
            "study": study.model_dump(mode="json", exclude={"seconds"}),
            **self.model_dump(mode="json", include={"version", "notices", "models"}),
        }
        for found in plain["study"]["findings"].values():
            del found["key_image"]["file"]  # the same study may be read from another folder
            del found["location"]  # no DICOM result states it
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    @property
    def digest(self) -> str:
        """Digest of all studies; timing is left out."""
        return hashlib.sha256("".join(self.content(study) for study in self.studies).encode()).hexdigest()


def read_results(folder: Path) -> Results:
    """Read ``studies.json`` of a prediction.

    Raises:
        IntegrityError: The file is missing, or does not follow the schema.
    """
    file = folder / STUDIES
    try:
        return Results.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise IntegrityError(f"{file}: missing or damaged; run predict again with --rebuild") from error


def schema_text() -> str:
    """The JSON schema of ``studies.json``, as ``studies.schema.json`` contains it."""
    schema = Results.model_json_schema(mode="serialization")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=1) + "\n"
