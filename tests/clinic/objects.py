"""Studies as DICOM files with made-up probabilities and their DICOM results, for tests of this folder."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from dicoms import frame_groups, head, write_slice
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from rsna_seq.clinic.collect import collect
from rsna_seq.clinic.results import ClassThreshold, Model, Results, Thresholds
from rsna_seq.clinic.write import Written, WrittenList, write_dicom
from rsna_seq.config import IndexConfig
from rsna_seq.datasets.rsna2019.submission import studies_table
from rsna_seq.labels import CLASSES
from rsna_seq.stages import index

CT, ENHANCED = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"
PHANTOM = Model(name="phantom", version="0.1.0", digest="ab" * 32, phantoms_only=True)
FIXED = Thresholds(
    operating_point="fixed", note="fixed", classes={name: ClassThreshold(threshold=0.5) for name in CLASSES}
)
WHOLE = {
    "SOPClassUID": CT,
    "PatientName": "Doe^Jane",
    "PatientBirthDate": "19500101",
    "PatientSex": "F",
    "StudyDate": "20240102",
    "StudyTime": "101112.5",
    "AccessionNumber": "A1",
    "StudyID": "S1",
    "ReferringPhysicianName": "Smith^John",
    "StudyDescription": "Head",
}
"""Elements of a complete study."""


@dataclass(frozen=True)
class Predicted:
    """Studies with made-up probabilities."""

    root: Path
    indexed: pl.DataFrame
    slices: pl.DataFrame
    results: Results

    def write(self, out: Path) -> dict[str, Written]:
        """Write the DICOM results; what was written, by study of the input."""
        write_dicom(self.results, self.indexed, self.root, out, sources=[self.root])
        listed = WrittenList.model_validate_json((out / "dicom.json").read_text(encoding="utf-8"))
        return {each.study: each for each in listed.studies}


def predicted(root: Path, *, model: Model = PHANTOM, seed: int = 0, most: float = 1.0) -> Predicted:
    """Index a folder, and give every slice probabilities up to ``most``."""
    scan = index.scan([root], IndexConfig())
    rng = np.random.default_rng(seed)
    drawn = [pl.Series(name, most * rng.random(len(scan.slices))) for name in CLASSES]
    slices = scan.slices.select("study", "series", "slice", "file", "z_mm").with_columns(drawn)
    results = collect(
        studies_table(slices),
        slices,
        scan.slices,
        scan.quarantine,
        models=[model],
        root=str(root),
        thresholds=FIXED,
        seconds={},
    )
    return Predicted(scan.root, scan.slices, slices, results)


def write_whole(folder: Path, study: str = "1.2.826.0.7.1", **elements: object) -> None:
    """A complete study of four slices with valid UIDs."""
    about = {**WHOLE, "SeriesInstanceUID": f"{study}.1", **elements}
    with disable_value_validation():
        for k in range(4):
            hu = head(5.0 * k, bleed=k == 2)
            write_slice(folder, f"{study}.1.{k + 1}", study=study, z=5.0 * k, hu=hu, **about)


def write_frames(folder: Path, study: str = "1.2.826.0.8.1", frames: int = 4) -> Path:
    """One enhanced multi-frame object."""
    path = write_slice(folder, f"{study}.1.1", study=study, SeriesInstanceUID=f"{study}.1", **WHOLE)
    whole = dcmread(path)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"):
        delattr(whole, keyword)
    del whole.PixelSpacing
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = ENHANCED
    whole.NumberOfFrames = frames
    whole.PixelData = (np.stack([head(5.0 * i) for i in range(frames)]) + 1024).astype("<i2").tobytes()
    for keyword, items in frame_groups(frames).items():
        setattr(whole, keyword, items)
    whole.save_as(path, enforce_file_format=True)
    return path


def read(path: Path) -> Dataset:
    """Read an object, whatever its values are."""
    with disable_value_validation():
        whole = dcmread(path)
        list(whole.iterall())  # values are converted here, where invalid ones are allowed
        return whole


def faults(path: Path) -> set[str]:
    """What ``dciodvfy`` calls errors in a file."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    assert said, "it names at least the kind of object"
    return {line for line in said if line.startswith("Error")}
