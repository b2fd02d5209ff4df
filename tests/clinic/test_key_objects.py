"""The Key Object Selection: it selects what is above the threshold, and its references are in the input."""

from pathlib import Path

import pytest
from objects import predicted, read, write_frames, write_whole

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'rsna-seq[clinic]'")


@pytest.mark.parametrize("most", [1.0, 0.3])
def test_key_objects_are_the_key_images_that_are_shown(tmp_path: Path, most: float) -> None:
    from highdicom.ko import KeyObjectSelectionDocument

    write_whole(tmp_path / "in")
    write_frames(tmp_path / "in")
    made = predicted(tmp_path / "in", most=most)
    made.write(tmp_path / "out")
    present = {read(f).SOPInstanceUID for f in (tmp_path / "in").rglob("*.dcm")}
    for study in made.results.studies:
        shown = study.shown()
        assert list(shown) == (["any"] if most < 0.5 else [n for n, f in study.findings.items() if f.above])
        stored = KeyObjectSelectionDocument.from_dataset(
            read(tmp_path / "out" / study.study / "key_objects.dcm")
        )
        selected = set()
        for item in stored.content.get_references():
            (reference,) = item.ReferencedSOPSequence
            uid = reference.ReferencedSOPInstanceUID
            assert uid in present
            assert stored.resolve_reference(uid)[0] == study.study
            numbers = reference.get("ReferencedFrameNumber", [])
            numbers = [numbers] if isinstance(numbers, int) else list(numbers)
            selected |= {f"{uid}#{n}" for n in numbers} or {uid}
        assert selected == {found.key_image.slice for found in shown.values()}
        assert stored.content[0].ConceptNameCodeSequence[0].CodeValue == "113000"
        text = next(
            i.TextValue
            for i in stored.ContentSequence
            if i.ValueType == "TEXT" and "For research" in i.TextValue
        )
        assert all(notice in text for notice in made.results.notices)
