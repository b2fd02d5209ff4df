"""The report of a prediction: the page of a study, the worklist of several, and escaping of markup."""

import re
from pathlib import Path

import pytest
from made import FIXED, report_of, study_files

from rsna_seq.clinic.results import ClassThreshold
from rsna_seq.models import PHANTOMS_ONLY
from rsna_seq.scoring.operating_points import Figures, OperatingPoint, Rate

EVIL = "<script>alert('1')</script>&x"


def test_one_study_is_one_page_with_its_key_images(tmp_path: Path) -> None:
    study_files(tmp_path / "in", "A")
    made = report_of(tmp_path / "in", tmp_path, {"A": [0.1, 0.2, 0.6, 0.9, 0.3, 0.1]})
    assert not (tmp_path / "studies").exists()
    page = re.sub(r"\s+", " ", made.page())
    assert PHANTOMS_ONLY in page
    assert "P A" in page
    place = "z 15.0 mm, image 3"
    assert f"any haemorrhage 0.90, above 0.50; subdural 0.81, highest at {place}" in page
    assert page.count('<article class="key-image">') == 1  # one image of two classes is shown once
    assert page.count('src="data:image/png;base64,') == 4  # two windows, and the neighbours
    assert f'alt="brain window, {place}"' in page
    assert f'alt="subdural window, {place}"' in page
    assert "below: z 10.0 mm" in page
    assert "above: z 20.0 mm" in page
    assert "worklist" not in page.split("</style>")[1]


def test_several_studies_are_a_worklist_and_a_page_each(tmp_path: Path) -> None:
    for name in ("A", "B", "C"):
        study_files(tmp_path / "in", name, slices=3)
    any_ = {"A": [0.1, 0.2, 0.1], "B": [0.9, 0.5, 0.1], "C": [0.4, 0.7, 0.1]}
    made = report_of(tmp_path / "in", tmp_path, any_, pages=2)
    page = made.page()
    assert page.index("P B") < page.index("P C") < page.index("P A")
    assert re.findall(r'href="(.*?)"', page) == ["studies/0001.html", "studies/0002.html"]
    assert sorted(file.name for file in (tmp_path / "studies").iterdir()) == ["0001.html", "0002.html"]
    first = made.page("studies/0001.html")
    assert "P B" in first
    assert 'href="../report.html"' in first
    assert 'id="pixels"' in first
    assert "data:image" not in page
    assert "The first 2 studies have a page" in page
    assert len(page) < 20_000


def test_a_study_that_is_negative_unlike_training_or_uncertain_is_told_so(tmp_path: Path) -> None:
    study_files(tmp_path / "in", "A", slices=3)
    reason = "brain tissue at 43 HU (training 24 to 36)"
    any_ = {"A": [0.1, 0.4, 0.1]}
    page = report_of(tmp_path / "in", tmp_path / "a", any_, unlike=reason, spread=0.2).page()
    assert f"may be wrong:</b> {reason}." in page
    assert "<b>Uncertain:</b>" in page
    assert "any haemorrhage 0.40, not above 0.50" in page
    assert "any 0.40" in re.sub(r"<.*?>", "", page)  # its key image is shown all the same
    page = report_of(tmp_path / "in", tmp_path / "b", any_).page()
    assert "may be wrong" not in page
    assert "Uncertain" not in page


def test_the_findings_have_thresholds_with_their_figures(tmp_path: Path) -> None:
    study_files(tmp_path / "in", "A", slices=3)
    found = Figures(sensitivity=Rate.of_counts(18, 20), specificity=Rate.of_counts(60, 80))
    at = ClassThreshold(
        threshold=0.35,
        scope="held_out",
        sensitivity=0.9,
        specificity=0.75,
        prevalence=0.1,
        ppv=0.29,
        npv=0.985,
        point=OperatingPoint(threshold=0.35, held_out=found),
    )
    chosen = FIXED.model_copy(update={"note": "Chosen out of fold.", "classes": FIXED.classes | {"any": at}})
    made = report_of(tmp_path / "in", tmp_path, {"A": [0.1, 0.4, 0.1]}, thresholds=chosen)
    assert made.results.studies[0].findings["any"].above
    assert made.results.studies[0].findings["any"].ppv == 0.29
    page = re.sub(r"\s+", " ", re.sub(r"<.*?>", " ", made.page()))
    assert "0.400 above 0.350 0.90 18/20 0.75 60/80 0.29 0.98 held out" in page
    assert "Chosen out of fold." in page
    assert "at a prevalence of 10 % for any" in page
    assert "those on phantoms" in page


def test_images_that_can_no_longer_be_read_leave_the_rest_of_the_page(tmp_path: Path) -> None:
    study_files(tmp_path / "in", "A", slices=3)
    made = report_of(tmp_path / "in", tmp_path / "a", {"A": [0.9, 0.2, 0.1]}, pages=0)
    assert "data:image" not in made.page()
    assert 'id="pixels"' not in made.page()
    assert "any haemorrhage 0.90" in made.page()
    assert "script-src" not in made.page()


def test_text_from_files_is_escaped_and_no_page_loads_anything(tmp_path: Path) -> None:
    for name in ("A", "B"):
        study_files(tmp_path / "in", name, slices=2, PatientID=f"{name}{EVIL}")
    made = report_of(tmp_path / "in", tmp_path, {"A": [0.9, 0.1], "B": [0.8, 0.1]})
    for page in (made.page(), made.page("studies/0001.html")):
        assert "<script>alert" not in page
        assert "&lt;script&gt;" in page
        assert "default-src 'none'" in page
        assert not re.search(r"https?://", page)


@pytest.mark.parametrize("studies", [0, 2])
def test_no_study_and_no_page_make_a_report(tmp_path: Path, studies: int) -> None:
    (tmp_path / "in").mkdir()
    for name in "AB"[:studies]:
        study_files(tmp_path / "in", name, slices=2)
    any_ = {"A": [0.9, 0.1], "B": [0.8, 0.1]}
    if not studies:
        (tmp_path / "in" / "empty.dcm").touch()
    made = report_of(tmp_path / "in", tmp_path, any_, pages=0)
    assert f"{studies} studies" in made.page()
    assert not (tmp_path / "studies").exists()
    assert ("the file is empty" in made.page()) == (studies == 0)
