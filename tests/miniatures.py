"""Miniature data sets in the formats of the public ones, with heads made by code."""

import csv
from pathlib import Path

import cv2
import numpy as np
from dicoms import head, write_slice
from niftis import affine_of, write_nifti

Table = list[list[object]]
SLICES = 5
"""Slices of every study; slices 3 and 4 (from 1) bleed in studies that bleed."""
BLEEDS = (3, 4)
_FINDINGS = ("ICH", "IPH", "IVH", "SDH", "EDH", "SAH")
_OTHERS = ("BleedLocation-Left", "BleedLocation-Right", "ChronicBleed", "Fracture", "CalvarialFracture")
_OTHERS = (*_OTHERS, "OtherFracture", "MassEffect", "MidlineShift")


def write_csv(path: Path, rows: Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def planes(*, bleeds: bool) -> list[np.ndarray]:
    """(64, 64) HU of each slice, lowest first."""
    return [head(5.0 * k, bleed=bleeds and k in BLEEDS) for k in range(1, SLICES + 1)]


def write_dicom(
    folder: Path, study: str, patient: str, *, bleeds: bool, series: str = "", **more: object
) -> None:
    """One DICOM study, ``SERIES.1`` to ``SERIES.5`` from below."""
    series = series or f"{study}.1"
    for k, hu in enumerate(planes(bleeds=bleeds), 1):
        about = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "PatientAge": "061Y"}
        about |= {"InstanceNumber": k, **more}
        name = f"{series}.{k}"
        write_slice(folder, name, study=study, patient=patient, z=5.0 * k, hu=hu, **about)


def reads_csv(path: Path, answers: dict[str, dict[str, tuple[int, int, int]]]) -> Path:
    """``reads.csv``: answers of the three readers by study and finding; 0 where none is given."""
    names = (*_FINDINGS, *_OTHERS)
    rows: Table = [["name", "Category", *(f"R{r}:{f}" for r in (1, 2, 3) for f in names)]]
    for study, said in answers.items():
        rows.append([study, "B1", *(said.get(f, (0, 0, 0))[r] for r in range(3) for f in names)])
    return write_csv(path, rows)


def cq500(root: Path) -> Path:
    """As unpacked: study 1 bleeds (two of three, subdural by all), 2 by one reader only, 10 has no images."""
    for n in (1, 2):
        folder = root / f"CQ500CT{n} CQ500CT{n}" / "Unknown Study"
        scanner = {
            "Manufacturer": "GE MEDICAL SYSTEMS",
            "ManufacturerModelName": "LightSpeed VCT",
            "PatientSex": "O",
        }
        write_dicom(folder / "CT Plain", f"1.2.{n}", f"CQ500-CT-{n}", bleeds=n == 1, **scanner)
    for n in (1, 2):  # a second series with fewer slices
        folder = root / f"CQ500CT{n} CQ500CT{n}" / "Unknown Study" / "CT Thin"
        for k in (1, 2):
            about = {"SeriesInstanceUID": f"1.2.{n}.9"}
            write_slice(
                folder, f"1.2.{n}.9.{k}", study=f"1.2.{n}", patient=f"CQ500-CT-{n}", z=5.0 * k, **about
            )
    said = {
        "CQ500-CT-1": {"ICH": (1, 1, 0), "SDH": (1, 1, 1), "EDH": (0, 0, 1)},
        "CQ500-CT-2": {"ICH": (0, 1, 0), "IPH": (0, 1, 0)},
        "CQ500-CT-10": {},
    }
    reads_csv(root / "reads.csv", said)
    return root


def bhx(path: Path) -> Path:
    """Boxes on the thin series of study 1: subdural on its first slice, chronic on its second."""
    rows: Table = [
        ["", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "data", "labelName", "labelType"]
    ]
    box = "{'x': 10.0, 'y': 12.5, 'width': 8.0, 'height': 9.0}"
    rows += [[0, "1.2.1.9.1", "1.2.1.9", "1.2.1", box, "Subdural", "bbox"]]
    rows += [[1, "1.2.1.9.2", "1.2.1.9", "1.2.1", box, "Chronic", "bbox"]]
    return write_csv(path, rows)


_CT_ICH = ["PatientNumber", "SliceNumber", "Intraventricular", "Intraparenchymal", "Subarachnoid", "Epidural"]
_CT_ICH += ["Subdural", "No_Hemorrhage", "Fracture_Yes_No"]


def _ct_ich_rows() -> Table:
    rows: Table = [_CT_ICH]
    for patient in (49, 50):
        for k in range(1, SLICES + 1):
            bleeds = int(patient == 49 and k in BLEEDS)
            rows.append([patient, k, 0, bleeds, 0, 0, int(bleeds and k == 4), 1 - bleeds, 0])
    return rows


def _demographics(root: Path, name: str) -> None:
    header: list[object] = [
        "Patient Number",
        "Age\n(years)",
        "Gender",
        "Hemorrhage type based on\nradiologists",
    ]
    write_csv(root / name, [header, [49, 67, "Male", ""], [50, 0.5, "Female", ""]])


def ct_ich_nifti(root: Path) -> Path:
    """Version 1.3: ``ct_scans/049.nii``, tilted by 10 degrees, and masks."""
    column = (0.0, float(np.cos(np.radians(10))), float(np.sin(np.radians(10))))
    for n in (49, 50):
        affine = affine_of((-64, -64, 0), (0, 0, 5), column=column)
        write_nifti(root / "ct_scans" / f"{n:03d}.nii", planes(bleeds=n == 49), affine)
        write_nifti(
            root / "masks" / f"{n:03d}.nii", [(p == 70) * 255 for p in planes(bleeds=n == 49)], affine
        )
    write_csv(root / "hemorrhage_diagnosis_raw_ct.csv", _ct_ich_rows())
    _demographics(root, "patient_demographics.csv")
    return root


def ct_ich_jpeg(root: Path) -> Path:
    """Version 1.2: ``Patients_CT/049/brain/1.jpg``, ``bone/1.jpg`` and masks of slices that bleed."""
    for n in (49, 50):
        for k, hu in enumerate(planes(bleeds=n == 49), 1):
            place = root / "Patients_CT" / f"{n:03d}"
            for window, (level, width) in {"brain": (40, 120), "bone": (700, 3200)}.items():
                (place / window).mkdir(parents=True, exist_ok=True)
                grey = np.clip((hu - level + width / 2) / width * 255, 0, 255)
                cv2.imwrite(str(place / window / f"{k}.jpg"), np.rint(grey).astype(np.uint8))
            if n == 49 and k in BLEEDS:
                cv2.imwrite(str(place / "brain" / f"{k}_HGE_Seg.jpg"), ((hu == 70) * 255).astype(np.uint8))
    write_csv(root / "hemorrhage_diagnosis.csv", _ct_ich_rows())
    _demographics(root, "Patient_demographics.csv")
    return root


def bhsd(root: Path) -> Path:
    """``label_192``: one volume with epidural (1) and subarachnoid (4) voxels, one whose mask is empty."""
    affine = affine_of((-64, -64, 0), (0, 0, 5))
    for name, bleeds in {"ID_0b10cbee_ID_f91d6a7cd2": True, "ID_1fc88e28_ID_0a3f4b5c6d": False}.items():
        volume = planes(bleeds=bleeds)
        write_nifti(root / "label_192" / "images" / f"{name}.nii.gz", volume, affine)
        masks = [(p == 70) * 1 for p in volume]
        masks[3] = masks[3] * 4
        write_nifti(root / "label_192" / "ground truths" / f"{name}.nii.gz", masks, affine, np.uint8)
    return root
