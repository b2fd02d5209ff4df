"""What every DICOM result states about the software that made it, and its identifiers."""

from typing import TYPE_CHECKING, Any

from rsna_seq.clinic.codes import PRIVATE, PRIVATE_NAME
from rsna_seq.clinic.identifiers import new_uid
from rsna_seq.clinic.results import Results, Study
from rsna_seq.clinic.sources import Source

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MANUFACTURER = "rsna_seq"
_LONGEST = 64
_SERIES = {"report": 9001, "key objects": 9002, "captures": 9003}
"""SeriesNumber of each kind of result: far above those of scanners."""


def common(results: Results, study: Study, source: Source, kind: str, number: int = 1) -> dict[str, Any]:
    """Arguments of highdicom's constructors that all kinds of results share.

    UIDs depend on the content of the result and nothing else: the same input and model give the same objects.

    Args:
        results: The whole prediction.
        study: The study that the object describes.
        source: Its source.
        kind: ``report``, ``key objects`` or ``captures``.
        number: InstanceNumber.
    """
    content = results.content(study)
    return {
        "series_instance_uid": new_uid(kind, "series", content),
        "series_number": _SERIES[kind],
        "series_description": f"rsna_seq {kind}, research only",
        "sop_instance_uid": new_uid(kind, str(number), content),
        "instance_number": number,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": model_name(results),
        "software_versions": results.version,
        "device_serial_number": model_digest(results)[:_LONGEST],
        "content_date": source.date,
        "content_time": source.time,
    }


def finish(made: "Dataset", source: Source) -> "Dataset":
    """Date an object as its source; highdicom writes the current time."""
    for keyword in ("InstanceCreationDate", "DateOfSecondaryCapture"):
        if keyword in made:
            setattr(made, keyword, source.date)
    for keyword in ("InstanceCreationTime", "TimeOfSecondaryCapture"):
        if keyword in made:
            setattr(made, keyword, source.time)
    return made


def model_name(results: Results) -> str:
    """Names of the models, at most 64 characters of ASCII."""
    named = " + ".join(model.name for model in results.models) or "rsna_seq"
    plain = named.encode("ascii", "replace").decode().replace("\\", "/")
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 3] + "..."


def model_digest(results: Results) -> str:
    """Digest of the model; of several models, one digest of all."""
    digests = [model.digest for model in results.models]
    return digests[0] if len(digests) == 1 else new_uid("models", *digests)


def observer(results: Results) -> Any:
    """The software as the observer of a report (TID 1002, TID 1004)."""
    from highdicom.sr import DeviceObserverIdentifyingAttributes, ObserverContext
    from pydicom.sr.codedict import codes

    device = DeviceObserverIdentifyingAttributes(
        uid=new_uid("device", model_digest(results)),
        name="rsna_seq",
        manufacturer_name=MANUFACTURER,
        model_name=model_name(results),
        serial_number=model_digest(results)[:_LONGEST],
    )
    return ObserverContext(codes.DCM.Device, device)


def private_scheme() -> Any:
    """Identification of the private coding scheme (PS3.3 C.12.1, Coding Scheme Identification Sequence)."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return CodingSchemeIdentificationItem(
        designator=PRIVATE,
        name=f"Private codes of {PRIVATE_NAME}",
        responsible_organization=PRIVATE_NAME,
    )


def statements(results: Results, study: Study) -> list[str]:
    """What a reader of an object must know: notices, an unusual study, files that were not used."""
    doubt, texts = study.uncertainty, list(results.notices)
    if doubt and doubt.unlike_training:
        texts.append(f"This study is unlike the training data: {doubt.unlike_reason}.")
    if study.excluded:
        texts.append(f"{study.excluded:,} files of this study were not used.")
    return texts


def notes(source: Source) -> list[str]:
    """What was replaced or left out, in sentences."""
    return [f"Note: {note}." for note in source.notes]
