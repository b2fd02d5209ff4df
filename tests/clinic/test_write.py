"""Folders of DICOM results: valid objects for every kind of source, the same bytes for the same input."""

import importlib.util
from pathlib import Path

import pytest
from dicoms import head, write_slice
from objects import (
    CT,
    PHANTOM,
    WHOLE,
    Predicted,
    faults,
    predicted,
    read,
    write_frames,
    write_whole,
)
from pydicom.uid import UID

from rsna_seq.clinic.extra import must_have_highdicom
from rsna_seq.errors import EnvironmentFaultError, UsageError

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'rsna-seq[clinic]'")

LATIN = {**WHOLE, "SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jörg"}
ODD = {**WHOLE, "PatientSex": "female", "StudyDate": "20241399", "StudyID": "longer than sixteen characters"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Predicted, Path]:
    """Results of four studies: complete, the competition's, multi-frame, and one with unusual values."""
    root = tmp_path_factory.mktemp("results")
    write_whole(root / "in")
    write_frames(root / "in")
    write_whole(root / "in", "1.2.826.0.9.1", **ODD)
    for k in range(3):
        write_slice(root / "in", f"ID_{k}", z=5.0 * k, hu=head(5.0 * k))
    found = predicted(root / "in")
    assert all(each.reason is None for each in found.write(root / "out").values())
    return found, root / "out"


def test_objects_have_no_fault_that_their_source_has_not(made: tuple[Predicted, Path]) -> None:
    found, out = made
    for study in found.results.studies:
        files = {out / name for name in found.write(out)[study.study].files}
        assert len(files) >= 3
        source = faults(found.root / study.findings["any"].key_image.file)
        for file in files:
            assert faults(file) <= (source if "0.9.1" in study.study else set()), file


def test_patient_and_study_are_those_of_the_source(made: tuple[Predicted, Path]) -> None:
    found, out = made
    for study in found.results.studies:
        source = read(found.root / study.findings["any"].key_image.file)
        for name in found.write(out)[study.study].files:
            result = read(out / name)
            for keyword in ("PatientID", "PatientName", "AccessionNumber", "StudyID", "PatientBirthDate"):
                assert str(result[keyword].value or "") == str(source.get(keyword) or ""), keyword
            assert UID(result.StudyInstanceUID).is_valid
            assert (result.StudyInstanceUID == source.StudyInstanceUID) == (study.study != "ID_s1")
            assert result.ContentDate == (
                source.get("StudyDate", "")
                if study.study[:7] == "1.2.826" and "0.9.1" not in study.study
                else "19700101"
            )
    odd = found.write(out)["1.2.826.0.9.1"].notes
    assert [note.split()[0] for note in odd if "left out" in note] == ["PatientSex", "StudyDate"]


def test_identifiers_that_are_no_uids_are_replaced_and_told(made: tuple[Predicted, Path]) -> None:
    found, out = made
    (study,) = [s for s in found.results.studies if s.study == "ID_s1"]
    written = found.write(out)["ID_s1"]
    assert written.study_uid == study.replaced_uids["ID_s1"]
    report = read(out / f"{written.study_uid}/report.dcm")
    assert report.StudyInstanceUID == written.study_uid
    for old, new in study.replaced_uids.items():
        assert UID(new).is_valid
        assert any(old in note and new in note for note in written.notes)
    assert any("SOPClassUID" in note for note in written.notes)
    referred = {
        reference.ReferencedSOPInstanceUID
        for item in report.CurrentRequestedProcedureEvidenceSequence
        for series in item.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    }
    assert referred <= set(study.replaced_uids.values())


def test_text_of_other_character_sets_is_kept(tmp_path: Path) -> None:
    write_whole(tmp_path / "in", **LATIN)
    (written,) = predicted(tmp_path / "in").write(tmp_path / "out").values()
    names = {str(read(tmp_path / "out" / name).PatientName) for name in written.files}
    assert names == {"Müller^Jörg"}


def test_the_same_input_gives_the_same_bytes_and_another_model_other_uids(
    made: tuple[Predicted, Path], tmp_path: Path
) -> None:
    found, out = made
    found.write(tmp_path / "again")
    files = sorted(path.relative_to(out) for path in out.rglob("*.dcm"))
    assert files == sorted(
        path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*.dcm")
    )
    assert all((out / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)
    other = predicted(found.root, model=PHANTOM.model_copy(update={"digest": "cd" * 32}))
    other.write(tmp_path / "other")
    uids = [
        {(ds.SOPInstanceUID, ds.SeriesInstanceUID) for ds in map(read, place.rglob("*.dcm"))}
        for place in (out, tmp_path / "other")
    ]
    instances = [{uid for uid, _ in each} for each in uids]
    assert len(instances[0]) == len(files)
    assert not {uid for pair in uids[0] for uid in pair} & {uid for pair in uids[1] for uid in pair}


def test_a_study_that_can_have_no_results_is_told_and_stops_nothing(tmp_path: Path) -> None:
    write_whole(tmp_path / "in")
    write_whole(tmp_path / "in", "1.2.826.0.6.1", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    gone = "1.2.826.0.5.1"
    write_whole(tmp_path / "in", gone, SOPClassUID=CT)
    found = predicted(tmp_path / "in")
    for file in (tmp_path / "in").glob(f"{gone}*"):
        file.unlink()
    written = found.write(tmp_path / "out")
    assert "SOPClassUID" in (written["1.2.826.0.6.1"].reason or "")
    assert "unreadable_file" in (written[gone].reason or "")
    assert written["1.2.826.0.7.1"].reason is None
    assert {path.parent.name for path in (tmp_path / "out").rglob("*.dcm")} == {"1.2.826.0.7.1"}


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    write_whole(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.dcm").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="refused"):
        predicted(tmp_path / "in").write(tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.dcm"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EnvironmentFaultError, match=r"rsna-seq\[clinic\]"):
        must_have_highdicom()


def test_a_real_study_has_results_without_new_faults(real: Path, tmp_path: Path) -> None:
    for name in ("CQ500-CT-181", "CQ500-CT-47"):
        found = predicted(real / "cq500" / name)
        (written,) = found.write(tmp_path / name).values()
        assert written.reason is None
        (study,) = found.results.studies
        present = {str(read(f).SOPInstanceUID) for f in (real / "cq500" / name).iterdir()}
        assert {found_.key_image.slice for found_ in study.findings.values()} <= present
        source = faults(found.root / study.findings["any"].key_image.file)
        for file in written.files:
            assert faults(tmp_path / name / file) <= source, file
