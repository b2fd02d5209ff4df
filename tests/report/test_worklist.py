"""The worklist: order, one-line answers, marks, and a page that loads nothing."""

from dataclasses import replace

from rsna_seq.clinic.results import Finding, KeyImage, Study, Uncertainty
from rsna_seq.labels import CLASSES
from rsna_seq.report.worklist import (
    FAILED,
    WorklistRow,
    marks_of,
    one_line_answer,
    order_by_urgency,
    row_of,
    worklist_html,
)

EVIL = "<script>alert('1')</script>"


def study_with(name: str = "1.2.3", *, excluded: int = 0, spread: float = 0.0, **found: float) -> Study:
    """A study with the probabilities of some classes; the others have 0.01. Thresholds are 0.5."""
    key = KeyImage(slice="1.2.3.4", series="1.2.3.5", file="a.dcm", z_mm=35.0)
    probabilities = dict.fromkeys(CLASSES, 0.01) | found
    return Study(
        study=name,
        patient="P1",
        slices=30,
        excluded=excluded,
        findings={
            c: Finding(probability=p, threshold=0.5, above=p > 0.5, key_image=key)
            for c, p in probabilities.items()
        },
        uncertainty=Uncertainty(
            unlike_training=False, unlike_reason=None, novelty=0.5, spread=dict.fromkeys(CLASSES, spread)
        ),
        seconds=1.0,
    )


def test_the_highest_probability_comes_first_then_failed_studies_then_those_that_wait() -> None:
    rows = [
        WorklistRow("q2", "", "queued", None, "", (), None, "2026-01-01T10:00:00"),
        WorklistRow("low", "", "answered", 0.1, "", ("uncertain",), None),
        WorklistRow("broken", "", FAILED, None, "no readable CT slice", (), None),
        WorklistRow("q1", "", "queued", None, "", (), None, "2026-01-01T09:00:00"),
        WorklistRow("b", "", "answered", 0.9, "", (), None, "2026-01-01T10:00:00"),
        WorklistRow("a", "", "answered", 0.9, "", (), None, "2026-01-01T11:00:00"),
        WorklistRow("zero", "", "answered", 0.0, "", (), None),
    ]
    order = ["b", "a", "low", "zero", "broken", "q1", "q2"]
    assert [row.study for row in order_by_urgency(rows)] == order
    assert [row.study for row in order_by_urgency(rows[::-1])] == order


def test_the_answer_names_any_and_the_types_above_their_thresholds() -> None:
    found = study_with(any=0.98, subdural=0.93, epidural=0.61, intraventricular=0.5)
    expected = "any haemorrhage 0.98, above 0.50; subdural 0.93, epidural 0.61, highest at z 35.0 mm"
    assert one_line_answer(found) == expected
    assert one_line_answer(study_with(any=0.2)) == "any haemorrhage 0.20, not above 0.50"
    only = one_line_answer(study_with(any=0.7))
    assert only == "any haemorrhage 0.70, above 0.50; no type above its threshold, highest at z 35.0 mm"
    low = study_with(any=0.004)
    most = low.findings["any"].model_copy(update={"threshold": 0.005})
    low = low.model_copy(update={"findings": {**low.findings, "any": most}})
    assert one_line_answer(low) == "any haemorrhage 0.004, not above 0.005"
    assert "not above 0.50; epidural 0.60" in one_line_answer(study_with(any=0.4, epidural=0.6))


def test_marks_say_what_makes_an_answer_doubtful() -> None:
    assert marks_of(study_with(any=0.9, spread=0.3)) == ()
    assert marks_of(study_with(any=0.4, spread=0.1)) == ("uncertain",)
    assert marks_of(study_with(any=0.9, excluded=2)) == ("2 images not read",)
    known = study_with(any=0.9)
    assert known.uncertainty is not None
    unlike = known.uncertainty.model_copy(update={"unlike_training": True})
    assert marks_of(known.model_copy(update={"uncertainty": unlike})) == ("unlike the training data",)
    assert marks_of(known.model_copy(update={"uncertainty": None})) == ()


def test_the_page_shows_every_study_once_and_escapes_what_files_say() -> None:
    row = row_of(study_with(any=0.9), "studies/0001.html")
    failed = WorklistRow(EVIL, EVIL, FAILED, None, EVIL, (EVIL,), None)
    page = worklist_html([failed, row], ["For research only."], title="Today")
    assert page.index("0.90") < page.index("alert")
    assert "<script" not in page
    assert '<a href="studies/0001.html">' in page
    assert "For research only." in page
    assert "<h1>Today</h1>" in page
    assert "default-src 'none'" in page
    assert ">received<" not in page
    timed = worklist_html([replace(row, received="2026-01-01T10:00:00")], [])
    assert "2026-01-01T10:00:00" in timed
    assert ">state<" not in timed
    assert "No study." in worklist_html([], [])
