"""Headers read one by one and in batches: equal values, and only typed errors for damaged ones."""

import contextlib
from pathlib import Path

import pytest
from dicoms import write_slice
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import DATA_ROOT

from rsna_seq.imaging.headers.batch import read_block
from rsna_seq.imaging.headers.single import read_headers
from rsna_seq.imaging.sources import list_files
from rsna_seq.reasons import ExclusionError


def block(folder: Path) -> dict[str, dict[str, object]]:
    """What the block reader takes of a folder, by name."""
    listing = list_files(folder)
    plain, others = read_block(str(folder), listing.names, listing.sizes, listing.mtimes_ns)
    assert len(plain) + len(others) == len(listing)
    return {listing.names[row.pop("at")]: row for row in plain.to_dicts()}


def alone(path: Path) -> dict[str, object]:
    """The one header of a file, as a row of the block reader's table."""
    (header,) = read_headers(str(path))
    return header


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]},
        {"ConvolutionKernel": ["H30s", "2"], "ContrastBolusAgent": "iodine"},
        {"PixelPaddingValue": -2000},
        {"PixelPaddingValue": 63536, "PixelRepresentation": 0},
        {"SliceLocation": "12.50 ", "InstanceNumber": "7"},
        {"ImagePositionPatient": None},
        {"ImageOrientationPatient": None},
        {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
        {"PixelSpacing": [0, 0.5]},
        {"PatientID": " padded "},
        {"SpecificCharacterSet": "ISO_IR 100"},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"RescaleSlope": "0.5", "RescaleIntercept": "-1024.0"},
    ],
)
def test_both_ways_agree(tmp_path: Path, implicit: bool, change: dict[str, object]) -> None:
    path = write_slice(tmp_path, "ID_1", implicit=implicit, **change)
    write_slice(tmp_path, "ID_2")
    assert block(tmp_path)[path.name] == alone(path)


@pytest.mark.parametrize(
    "change",
    [
        {"SpecificCharacterSet": "ISO_IR 100", "PatientID": "M\xfcller"},
        {"StudyInstanceUID": ""},
        {"Modality": "MR"},
        {"Rows": 0},
        {"RescaleSlope": None},
        {"RescaleSlope": "nan"},
        {"ImagePositionPatient": [0, 0]},
        {"NumberOfFrames": 2},
        {"PixelData": b"\0\0"},
    ],
)
def test_what_is_unusual_is_read_alone(tmp_path: Path, change: dict[str, object]) -> None:
    path = write_slice(tmp_path, "ID_1", **change)
    write_slice(tmp_path, "ID_2")
    assert set(block(tmp_path)) == {"ID_2.dcm"}
    if change.get("PatientID"):
        assert alone(path)["patient"] == "M\xfcller"


@pytest.mark.parametrize("vr", [b"AO", b"UN", b"US"])
def test_an_element_of_another_representation_is_read_alone(tmp_path: Path, vr: bytes) -> None:
    path = write_slice(tmp_path, "ID_1")
    write_slice(tmp_path, "ID_2")
    whole = path.read_bytes()
    at = whole.index(b"\x10\0\x20\0LO") + 4
    path.write_bytes(whole[:at] + vr + whole[at + 2 :])
    assert set(block(tmp_path)) == {"ID_2.dcm"}


def test_pydicoms_own_files_are_read_alike_or_not_at_all() -> None:
    folder = Path(DATA_ROOT) / "test_files"
    found = block(folder)
    assert len(found) > 4
    for name, row in found.items():
        assert row == alone(folder / name), name


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_headers_are_read_alike_or_have_a_reason(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = write_slice(folder, "ID_1", implicit=data.draw(st.booleans()))
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, 1100))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 1400)) if data.draw(st.booleans()) else len(damaged)
    path.write_bytes(damaged[:cut])
    taken = block(folder)
    if path.name in taken:
        assert taken[path.name] == alone(path)
    else:
        with contextlib.suppress(ExclusionError):
            read_headers(str(path))


def test_real_headers_are_read_alike(real: Path) -> None:
    for folder in (real / "cranium" / "stage_2_train", real / "cq500"):
        found = block(folder)
        assert len(found) == sum(1 for path in folder.rglob("*") if path.is_file())
        for name in sorted(found)[::10]:
            assert found[name] == alone(folder / name)
