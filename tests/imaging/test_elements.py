"""The quick walk over a header says what pydicom says, or nothing."""

import contextlib
from pathlib import Path

import pytest
from dicoms import write_slice
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import DATA_ROOT

from rsna_seq.imaging.elements import _by_pydicom, quick_elements, read_elements
from rsna_seq.reasons import SetAsideError


def _both(path: Path) -> tuple[object, object]:
    data = path.read_bytes()
    return quick_elements(data[:8192], len(data)), _by_pydicom(path, len(data))


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]},
        {"PixelPaddingValue": -2000},
        {"PixelPaddingValue": 63536, "PixelRepresentation": 0},
        {"SliceLocation": "12.50 ", "InstanceNumber": "7"},
        {"ImagePositionPatient": None},
        {"PatientID": " padded "},
        {"StudyInstanceUID": ""},
    ],
)
def test_both_ways_agree(tmp_path: Path, implicit: bool, change: dict[str, object]) -> None:
    quick, slow = _both(write_slice(tmp_path, "ID_1", implicit=implicit, **change))
    assert quick is not None
    assert quick == slow


def test_other_character_sets_go_to_pydicom(tmp_path: Path) -> None:
    path = write_slice(tmp_path, "ID_1", SpecificCharacterSet="ISO_IR 100", PatientID="M\xfcller")
    quick, _ = _both(path)
    assert quick is None
    assert read_elements(path).values["PatientID"] == "M\xfcller"


def test_pydicoms_own_files_are_read_alike_or_not_at_all() -> None:
    compared = 0
    for path in sorted((Path(DATA_ROOT) / "test_files").glob("*.dcm")):
        quick = quick_elements(path.read_bytes()[:8192], path.stat().st_size)
        if quick is not None:
            compared += 1
            assert quick == _by_pydicom(path, path.stat().st_size), path.name
    assert compared > 10


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_damaged_header_raises_nothing_but_a_reason(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    damaged = bytearray(write_slice(folder, "ID_1").read_bytes()[:1400])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    (folder / "bad.dcm").write_bytes(damaged[:cut])
    with contextlib.suppress(SetAsideError):
        read_elements(folder / "bad.dcm")


def test_real_headers_are_read_alike(real: Path) -> None:
    for path in sorted((real / "cranium").rglob("*.dcm"))[::10]:
        quick, slow = _both(path)
        assert quick is not None
        assert quick == slow
