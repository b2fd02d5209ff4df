"""Real DICOM files for tests, written by pydicom: small studies in the competition's layout."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from rsna_seq.labels import CLASSES


def write_slice(
    folder: Path,
    name: str,
    *,
    study: str = "ID_s1",
    patient: str = "ID_p1",
    z: float = 0.0,
    hu: np.ndarray | None = None,
    implicit: bool = False,
    **elements: Any,
) -> Path:
    """Write one CT slice of a tiny head; ``elements`` replace or, where None, remove header elements."""
    hu = head(z) if hu is None else hu
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.1"
    slice_ = Dataset()
    slice_.file_meta = meta
    values: dict[str, Any] = {
        "SOPInstanceUID": name,
        "Modality": "CT",
        "PatientID": patient,
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}_series",
        "ImagePositionPatient": [-64.0, -64.0, z],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": hu.shape[0],
        "Columns": hu.shape[1],
        "PixelSpacing": [2.0, 2.0],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "WindowCenter": ["40", "80"],
        "WindowWidth": ["80", "200"],
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
        "PixelData": (hu + 1024).astype("<i2").tobytes(),
        **elements,
    }
    for key, value in values.items():
        if value is not None:
            setattr(slice_, key, value)
    path = folder / f"{name}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    slice_.save_as(path, enforce_file_format=True)
    return path


def head(z: float, size: int = 64, *, bleed: bool = False) -> np.ndarray:
    """A disc of brain in a ring of bone, (size, size) HU."""
    y, x = np.mgrid[:size, :size] - size / 2
    radius = np.hypot(x, y) / size
    hu = np.full((size, size), -1000)
    hu[radius < 0.4] = 900
    hu[radius < 0.36] = 30 + round(z) % 7
    if bleed:
        hu[(np.hypot(x - 8, y) / size) < 0.1] = 70
    return hu


def write_set(root: Path, *, studies: int = 6, slices: int = 6, test_studies: int = 2) -> Path:
    """A competition as downloaded: train and test folders, labels, sample; every second study bleeds."""
    rows, sample = ["ID,Label"], ["ID,Label"]
    for i in range(studies + test_studies):
        train = i < studies
        for k in range(slices):
            name = f"ID_{i:03d}{(k * 7) % slices:03d}abc"  # the names carry no order
            bleed = i % 2 == 0 and k in (2, 3)
            folder = root / ("stage_2_train" if train else "stage_2_test")
            hu = head(5.0 * k, bleed=bleed)
            write_slice(
                folder, name, study=f"ID_s{i}", patient=f"ID_p{i}", z=5.0 * k, hu=hu, implicit=i % 3 == 0
            )
            answers = [
                int(bleed and c in ("subdural" if i % 4 else "intraparenchymal", "any")) for c in CLASSES
            ]
            rows += [f"{name}_{c},{a}" for c, a in zip(CLASSES, answers, strict=True)] if train else []
            sample += [] if train else [f"{name}_{c},0.5" for c in CLASSES]
    (root / "stage_2_train.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "stage_2_sample_submission.csv").write_text("\n".join(sample) + "\n", encoding="utf-8")
    return root


def frame_groups(frames: int) -> dict[str, list[Dataset]]:
    """The functional groups of an axial multi-frame CT object: 2 mm pixels, frames every 5 mm."""
    shared = _nested(
        PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        PixelMeasuresSequence={"PixelSpacing": [2.0, 2.0]},
        PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": -1024},
    )
    places = ([-64.0, -64.0, 5.0 * i] for i in range(frames))
    each = [_nested(PlanePositionSequence={"ImagePositionPatient": place}) for place in places]
    return {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": each}


def _nested(**groups: dict[str, object]) -> Dataset:
    """An item of functional groups."""
    item = Dataset()
    for name, elements in groups.items():
        inner = Dataset()
        for keyword, value in elements.items():
            setattr(inner, keyword, value)
        setattr(item, name, [inner])
    return item
