"""The structured report, read back with highdicom: probabilities, codes, references, notices."""

from pathlib import Path

import pytest
from objects import Predicted, predicted, read, write_frames, write_whole
from pydicom.sr.codedict import codes

from rsna_seq.clinic.codes import CONCEPTS, PRIVATE
from rsna_seq.labels import CLASSES
from rsna_seq.models import PHANTOMS_ONLY

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'rsna-seq[clinic]'")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Predicted, Path]:
    root = tmp_path_factory.mktemp("reports")
    write_whole(root / "in")
    write_frames(root / "in")
    found = predicted(root / "in")
    found.write(root / "out")
    return found, root / "out"


def test_six_probabilities_with_their_codes_and_key_images(made: tuple[Predicted, Path]) -> None:
    from highdicom.sr import Comprehensive3DSR

    found, out = made
    for study in found.results.studies:
        report = Comprehensive3DSR.from_dataset(read(out / study.study / "report.dcm"))
        groups = report.content.get_image_measurement_groups()
        assert [g.tracking_identifier for g in groups] == [f"rsna_seq {name}" for name in CLASSES]
        for name, group in zip(CLASSES, groups, strict=True):
            (measured,) = group.get_measurements()
            expected, key = study.findings[name].probability, study.findings[name].key_image
            assert measured.name == codes.DCM.Probability
            assert measured.value == expected
            assert group.finding_type.value == CONCEPTS[name].finding[0]
            sites = [site.value.value for site in group.finding_sites]
            assert sites == ([CONCEPTS[name].site[0]] if CONCEPTS[name].site else [])  # type: ignore[index]
            (image,) = measured.referenced_images
            uid, _, frame = key.slice.partition("#")
            assert image.referenced_sop_instance_uid == uid
            assert image.referenced_frame_numbers == ([int(frame)] if frame else None)


def test_the_algorithm_and_the_notices_are_named(made: tuple[Predicted, Path]) -> None:
    found, out = made
    report = read(out / found.results.studies[0].study / "report.dcm")
    text = str(report)
    assert found.results.models[0].digest in text
    assert "Artificial Intelligence" in text
    (container,) = [i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "C0034375"]
    said = [item.TextValue for item in container.ContentSequence]
    assert said[: len(found.results.notices)] == found.results.notices
    assert PHANTOMS_ONLY in said
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )


def test_codes_are_those_of_pydicom_or_private_with_a_named_scheme(made: tuple[Predicted, Path]) -> None:
    found, out = made
    known = {
        codes.SCT.IntracranialHemorrhage,
        codes.SCT.Hemorrhage,
        codes.SCT.Brain,
        codes.SCT.BrainVentricle,
    }
    known |= {codes.SCT.CranialSubarachnoidSpace}
    values = {code.value for code in known}
    used = {c for concept in CONCEPTS.values() for c in (concept.finding, concept.site) if c}
    public = {"21454007", "274100004", "35486000"}
    assert {value for value, scheme, _ in used if scheme == "SCT"} == values | public
    assert all(_verhoeff(value) for value in values | public)
    assert {scheme for _, scheme, _ in used} == {"SCT", PRIVATE}
    report = read(out / found.results.studies[0].study / "report.dcm")
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == PRIVATE


def _verhoeff(number: str) -> bool:
    """Whether the check digit of a SNOMED identifier holds."""
    turn = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]

    def product(a: int, b: int) -> int:
        """Multiplication in the dihedral group of ten elements."""
        if a < 5:
            return (a + b) % 5 if b < 5 else (a + b - 5) % 5 + 5
        return (a - 5 - b) % 5 + 5 if b < 5 else (a - b) % 5

    check = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit)
        for _ in range(place % 8):
            value = turn[value]
        check = product(check, value)
    return check == 0
