"""Bad inputs: other DICOM objects, links, and unusual text."""

import os
from pathlib import Path

from case_list import case, one, patched
from dicoms import write_slice
from pydicom import dcmread
from pydicom.data import DATA_ROOT


@case(37, "DICOMDIR that points out of the root", "dicomdir")
def _(folder: Path) -> None:
    dataset = dcmread(one(folder))
    outside = folder.parent.parent / "outside"
    write_slice(outside, "secret", study="ID_study_outside")
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    dataset.ReferencedFileID = ["..", "..", "outside", "secret.dcm"]
    del dataset.PixelData, dataset.SOPInstanceUID
    dataset.save_as(folder / "DICOMDIR")
    (folder / f"{folder.name}_a.dcm").unlink()


@case(38, "links out of the root", "link", "link")
def _(folder: Path) -> None:
    outside = folder.parent.parent / "outside"
    write_slice(outside, "secret", study="ID_study_outside")
    (folder / "file.dcm").symlink_to(outside / "secret.dcm")
    (folder / "folder").symlink_to(outside)


@case(42, "odd character sets", read=2)
def _(folder: Path) -> None:
    elements = {"SpecificCharacterSet": "ISO_IR 100", "SeriesDescription": "Sch\xe4del"}
    one(folder, "a", **elements)
    patched(one(folder, "b", z=5.0, **elements), b"ISO_IR 100", b"ISO_IR 999")


@case(43, "HTML in a tag", read=1)
def _(folder: Path) -> None:
    one(folder, study="<script>alert(1)</script>", SeriesDescription="<img src=x onerror=alert(1)>")


@case(44, "a UID with ../", read=1)
def _(folder: Path) -> None:
    path = one(folder, "a", study="../../../ID_escaped")
    patched(path, f"{folder.name}_a".encode(), b"../" + f"{folder.name}_a".encode()[3:])


@case(45, "MR, SR, SEG, PDF and a secondary capture", *["not_ct"] * 4, "derived_image")
def _(folder: Path) -> None:
    for modality in ("MR", "SR", "SEG", "DOC"):
        pixels = {} if modality in {"MR", "SEG"} else {"PixelData": None}
        one(folder, modality, Modality=modality, **pixels)
    one(folder, "capture", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")


@case(45, "a palette, a presentation state, raw data", *["not_an_image"] * 3)
def _(folder: Path) -> None:
    palette = Path(DATA_ROOT) / "palettes" / "hotiron.dcm"
    (folder / "palette.dcm").write_bytes(palette.read_bytes())
    kinds = {"state": ("1.2.840.10008.5.1.4.1.1.11.1", "PR"), "raw": ("1.2.840.10008.5.1.4.1.1.66", "CT")}
    for name, (kind, modality) in kinds.items():
        dataset = dcmread(one(folder, name, SOPClassUID=kind, Modality=modality))
        for keyword in ("Rows", "Columns", "PixelData", "BitsAllocated", "BitsStored", "PixelRepresentation"):
            delattr(dataset, keyword)
        dataset.save_as(folder / f"{folder.name}_{name}.dcm")


@case(46, "unreadable: a name that is not UTF-8, a pipe", "bad_name", "not_dicom")
def _(folder: Path) -> None:
    data = one(folder).read_bytes()
    (folder / f"{folder.name}_a.dcm").unlink()
    (folder / os.fsdecode(b"\xff\xfe.dcm")).write_bytes(data)
    os.mkfifo(folder / "pipe.dcm")
