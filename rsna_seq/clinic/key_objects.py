"""The Key Object Selection of a study (TID 2010, PS3.16): the key images of what was found, for viewers.

It selects the key image of each class above its threshold; if there is none, the slice with the highest
probability of ``any``.
"""

from typing import TYPE_CHECKING

from rsna_seq.clinic import codes
from rsna_seq.clinic.equipment import common, finish, notes, observer, statements
from rsna_seq.clinic.results import Finding, Results, Study
from rsna_seq.clinic.sources import Source

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def key_objects(results: Results, study: Study, source: Source) -> "Dataset":
    """Build the selection of one study.

    Args:
        results: The prediction that contains the study.
        study: The study.
        source: Its source.
    """
    from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
    from highdicom.sr import CodedConcept

    value, scheme, meaning = codes.OF_INTEREST
    selected = dict.fromkeys(found.key_image.slice for found in study.shown().values())
    images = {source.images[name].SOPInstanceUID: source.images[name] for name in selected}
    content = KeyObjectSelection(
        document_title=CodedConcept(value=value, scheme_designator=scheme, meaning=meaning),
        referenced_objects=list(images.values()),
        observer_device_context=observer(results),
        description="\n".join([*statements(results, study), *described(study), *notes(source)]),
    )
    frames: dict[str, list[int]] = {}
    for name in selected:
        number = source.frames[name]
        if number is not None:
            frames.setdefault(str(source.images[name].SOPInstanceUID), []).append(number)
    for item in content[0].ContentSequence:
        for reference in item.get("ReferencedSOPSequence", []):
            if numbers := frames.get(str(reference.ReferencedSOPInstanceUID)):
                reference.ReferencedFrameNumber = sorted(numbers)
    made = KeyObjectSelectionDocument(
        evidence=list(images.values()), content=content, **common(results, study, source, "key objects")
    )
    return finish(made, source)


def described(study: Study) -> list[str]:
    """One line per finding that is shown: class, probability, threshold, place."""
    return [f"{stated(name, found)}, {found.key_image.place}" for name, found in study.shown().items()]


def stated(name: str, found: Finding) -> str:
    """A class with its probability and threshold, in words."""
    sign = "above" if found.above else "not above"
    return f"{name}: probability {found.probability:.3f}, {sign} the threshold {found.threshold:.3g}"
