"""The worklist: studies in the order of urgency, each with a one-line answer; the head of ``report.html``.

Urgency is the probability of ``any``. Marks never change the order: a study that is marked has its answer,
and the mark says that the answer may be wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rsna_seq.clinic.results import Study
from rsna_seq.labels import CLASSES
from rsna_seq.report.page import page_text

ANSWERED, FAILED = "answered", "failed"
"""States of a study with an answer, and of one that could not be read or scored."""
UNLIKE, UNCERTAIN = "unlike the training data", "uncertain"
"""Marks; see :func:`marks_of`."""


@dataclass(frozen=True)
class WorklistRow:
    """One study of a worklist.

    Attributes:
        study: StudyInstanceUID.
        patient: PatientID.
        state: ``answered``, ``queued``, ``failed`` or another word of the caller.
        any: Probability of any haemorrhage; None where there is no answer.
        line: The answer in one line, or why there is none.
        marks: What a reader must know of the answer.
        href: Link to the page of the study, or None.
        received: When the study was received, as ISO 8601, or None.
    """

    study: str
    patient: str
    state: str
    any: float | None
    line: str
    marks: tuple[str, ...]
    href: str | None
    received: str | None = None


def order_by_urgency(rows: Sequence[WorklistRow]) -> list[WorklistRow]:
    """Order studies: highest probability of ``any`` first, then failed ones, then those without an answer.

    Studies that are equal are in the order of their arrival, then of their StudyInstanceUIDs.
    """

    def key(row: WorklistRow) -> tuple[int, float, str, str]:
        group = 0 if row.any is not None else 1 if row.state == FAILED else 2
        return group, -(row.any or 0.0), row.received or "", row.study

    return sorted(rows, key=key)


def worklist_html(
    rows: Sequence[WorklistRow],
    notices: Sequence[str],
    title: str = "Worklist: intracranial haemorrhage on head CT",
) -> str:
    """Write a worklist as a page of its own, which loads nothing.

    Args:
        rows: Studies in any order.
        notices: What a reader must know, shown above the studies.
        title: Heading of the page.

    Returns:
        HTML.
    """
    return page_text("worklist.html.j2", title=title, notices=list(notices), **worklist_values(rows))


def worklist_values(rows: Sequence[WorklistRow]) -> dict[str, object]:
    """The variables of ``worklist_rows.html.j2``: the ordered rows, and which columns are shown."""
    return {
        "rows": order_by_urgency(rows),
        "with_state": any(row.state != ANSWERED for row in rows),
        "with_time": any(row.received is not None for row in rows),
    }


def one_line_answer(study: Study) -> str:
    """The answer of a study in one line: ``any`` against its threshold, then the types above theirs.

    For example ``any haemorrhage 0.98, above 0.41; subdural 0.93, highest at z 35.0 mm, image 17``.
    """
    most = study.findings["any"]
    side = "above" if most.above else "not above"
    types = {name: study.findings[name] for name in CLASSES if name != "any" and study.findings[name].above}
    named = sorted(types, key=lambda name: -types[name].probability)
    digits = 2 if most.threshold >= 0.1 else 3  # so that it can be told from the probability
    parts = [f"any haemorrhage {most.probability:.{digits}f}, {side} {most.threshold:.{digits}f}"]
    if named:
        parts.append(", ".join(f"{name} {types[name].probability:.2f}" for name in named))
    elif most.above:
        parts.append("no type above its threshold")
    if most.above or named:
        key = most.key_image if most.above else types[named[0]].key_image
        parts[-1] += f", highest at {key.place}"
    return "; ".join(parts)


def marks_of(study: Study) -> tuple[str, ...]:
    """What a reader must know of an answer.

    ``unlike the training data``: see ``uncertainty.unlike_reason``. ``uncertain``: the probability of ``any``
    lies within one standard deviation over the networks of its threshold. A count of images that were not
    read.
    """
    marks = []
    found, known = study.findings["any"], study.uncertainty
    if known is not None and known.unlike_training:
        marks.append(UNLIKE)
    if known is not None and abs(found.probability - found.threshold) <= known.spread["any"]:
        marks.append(UNCERTAIN)
    if study.excluded:
        marks.append(f"{study.excluded:,} {'image' if study.excluded == 1 else 'images'} not read")
    return tuple(marks)


def row_of(study: Study, href: str | None, received: str | None = None) -> WorklistRow:
    """The row of an answered study."""
    return WorklistRow(
        study=study.study,
        patient=study.patient,
        state=ANSWERED,
        any=study.findings["any"].probability,
        line=one_line_answer(study),
        marks=marks_of(study),
        href=href,
        received=received,
    )
