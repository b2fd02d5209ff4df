"""The structured report of a study: Comprehensive 3D SR by TID 1500 (PS3.16), preliminary and unverified.

1. One measurement group (TID 1501) per class: finding, site, algorithm (TID 4019), the probability of the
   study as the maximum over its slices (TID 300), and a reference to that slice, with its frame number.
2. The notices as text items below ``Qualitative Evaluations``, a row of TID 1500.
"""

from typing import TYPE_CHECKING, Any

from rsna_seq.clinic import codes
from rsna_seq.clinic.equipment import (
    MANUFACTURER,
    common,
    finish,
    model_digest,
    model_name,
    notes,
    observer,
    private_scheme,
    statements,
)
from rsna_seq.clinic.identifiers import new_uid
from rsna_seq.clinic.results import Finding, Results, Study
from rsna_seq.clinic.sources import Source

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def structured_report(results: Results, study: Study, source: Source) -> "Dataset":
    """Build the report of one study.

    Args:
        results: The prediction that contains the study.
        study: The study.
        source: Its source.
    """
    from highdicom.sr import Comprehensive3DSR, MeasurementReport, ObservationContext

    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer(results)),
        procedure_reported=_coded(codes.HEAD_CT),
        imaging_measurements=[
            _group(results, study, source, name, found) for name, found in study.findings.items()
        ],
    )
    content[0].ContentSequence.append(_evaluations([*statements(results, study), *notes(source)]))
    made = Comprehensive3DSR(
        evidence=list(source.images.values()),
        content=content,
        is_complete=True,
        coding_schemes=[private_scheme()],
        **common(results, study, source, "report"),
    )
    return finish(made, source)


def _group(results: Results, study: Study, source: Source, name: str, found: Finding) -> Any:
    """The measurement group of one class."""
    from highdicom.sr import (
        AlgorithmIdentification,
        FindingSite,
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        SourceImageForMeasurement,
        TrackingIdentifier,
    )

    concept, frame = codes.CONCEPTS[name], source.frames[found.key_image.slice]
    header = source.images[found.key_image.slice]
    image = SourceImageForMeasurement(
        header.SOPClassUID, header.SOPInstanceUID, None if frame is None else [frame]
    )
    measured = Measurement(
        name=_coded(codes.PROBABILITY),
        value=found.probability,
        unit=_coded(codes.NO_UNITS),
        derivation=_coded(codes.MAXIMUM),
        referenced_images=[image],
    )
    algorithm = AlgorithmIdentification(
        name=model_name(results),
        version=results.version,
        manufacturer=MANUFACTURER,
        parameters=[
            f"model digest {model_digest(results)}",
            f"trained by rsna_seq {', '.join(sorted({model.version for model in results.models}))}",
            f"threshold {found.threshold:g}",
            "probability of the study: maximum over its slices",
        ],
        family=_coded(codes.ARTIFICIAL_INTELLIGENCE),
    )
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=new_uid("finding", name, results.content(study)), identifier=f"rsna_seq {name}"
        ),
        finding_type=_coded(concept.finding),
        finding_sites=[FindingSite(_coded(concept.site))] if concept.site else None,
        algorithm_id=algorithm,
        measurements=[measured],
    )


def _evaluations(texts: list[str]) -> Any:
    """A container with text items."""
    from highdicom.sr import ContainerContentItem, ContentSequence, RelationshipTypeValues, TextContentItem

    contains = RelationshipTypeValues.CONTAINS
    item = ContainerContentItem(name=_coded(codes.EVALUATIONS), relationship_type=contains)
    item.ContentSequence = ContentSequence(
        [TextContentItem(_coded(codes.COMMENT), text, relationship_type=contains) for text in texts]
    )
    return item


def _coded(triple: codes.Triple) -> Any:
    from highdicom.sr import CodedConcept

    value, scheme, meaning = triple
    return CodedConcept(value=value, scheme_designator=scheme, meaning=meaning)
