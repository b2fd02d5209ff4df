"""The bad inputs that lie in one folder with good studies: a builder each, and what becomes of its files."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dicoms import head, write_slice
from pydicom import dcmread
from pydicom.data import DATA_ROOT
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000
from transfer_syntaxes import SYNTAXES, bomb, write_encoded

Build = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        number: Its number in the list of bad inputs.
        title: What it is.
        build: Writes it into a folder of its own.
        reasons: Reasons that its files must leave in ``quarantine.parquet``, sorted.
        read: Slices of it that are read all the same.
        flags: Flags of its study.
    """

    number: int
    title: str
    build: Build
    reasons: tuple[str, ...] = ()
    read: int = 0
    flags: str = ""


CASES: list[Case] = []


def case(number: int, title: str, *reasons: str, read: int = 0, flags: str = "") -> Callable[[Build], Build]:
    """Put a builder on the list."""

    def take(build: Build) -> Build:
        CASES.append(Case(number, title, build, tuple(sorted(reasons)), read, flags))
        return build

    return take


def one(folder: Path, name: str = "a", **elements: Any) -> Path:
    """One slice of a study of its own, named after the folder."""
    about = {"study": f"ID_study_{folder.name}", "patient": f"ID_patient_{folder.name}", **elements}
    return write_slice(folder, f"{folder.name}_{name}", **about)


def some(folder: Path, places: list[float], **elements: Any) -> list[Path]:
    """Slices of one study at some places."""
    return [
        one(folder, f"{elements.get('prefix', '')}{i:04d}", z=z, **_without(elements))
        for i, z in enumerate(places)
    ]


def _without(elements: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in elements.items() if k != "prefix"}


def patched(path: Path, old: bytes, new: bytes) -> Path:
    """Replace bytes by as many others: what pydicom would not write."""
    data = path.read_bytes()
    assert old in data
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new))
    return path


@case(1, "empty file", "empty_file")
def _(folder: Path) -> None:
    (folder / "a.dcm").touch()


@case(2, "text, PNG or ZIP named .dcm", "not_dicom", "not_dicom", "not_dicom")
def _(folder: Path) -> None:
    for name, magic in {"text": b"hello", "png": b"\x89PNG\r\n\x1a\n", "zip": b"PK\x03\x04"}.items():
        (folder / f"{name}.dcm").write_bytes(magic + bytes(500))


@case(3, "DICOM without extension", read=1)
def _(folder: Path) -> None:
    path = one(folder)
    path.rename(path.with_suffix(""))


@case(4, "no preamble", read=1)
def _(folder: Path) -> None:
    path = one(folder)
    path.write_bytes(path.read_bytes()[132:])


@case(5, "no meta group: implicit, explicit, or neither", "header_invalid", read=2)
def _(folder: Path) -> None:
    for name, implicit in (("a", True), ("b", False)):
        path = one(folder, name, implicit=implicit, z=5.0 * implicit)
        data = path.read_bytes()
        path.write_bytes(data[144 + int.from_bytes(data[140:144], "little") :])
    (folder / "c.dcm").write_bytes(bytes(128) + b"DICM" + bytes(range(256)) * 4)


@case(6, "header cut short", "header_truncated", "header_truncated")
def _(folder: Path) -> None:
    for name, implicit in (("a", True), ("b", False)):
        path = one(folder, name, implicit=implicit)
        data = path.read_bytes()
        path.write_bytes(data[: data.index(b"ID_study") + 5])


@case(7, "pixels cut short", "pixels_truncated")
def _(folder: Path) -> None:
    path = one(folder)
    path.write_bytes(path.read_bytes()[:5000])


@case(8, "trailing padding", read=1)
def _(folder: Path) -> None:
    path = one(folder)
    path.write_bytes(path.read_bytes() + bytes(999))


@case(9, "declared length beyond the file", "length_overrun", "length_overrun")
def _(folder: Path) -> None:
    dataset = dcmread(one(folder, "a"))
    dataset.add_new((0x0009, 0x1010), "UN", b"\x12\x34\x56\x78")
    dataset.save_as(folder / f"{folder.name}_a.dcm")
    patched(folder / f"{folder.name}_a.dcm", b"UN\0\0\4\0\0\0\x12\x34", b"UN\0\0\xf0\xff\xff\x7f\x12\x34")
    path = one(folder, "b")
    data = path.read_bytes()
    at = data.index(b"\xe0\x7f\x10\x00OW\0\0") + 8
    path.write_bytes(data[:at] + b"\xfe\xff\xff\x7f" + data[at + 4 :])


@case(10, "deeply nested sequences", "nested_too_deep")
def _(folder: Path) -> None:
    path = one(folder)
    data = path.read_bytes()
    at = data.index(b"\x10\x00\x20\x00LO")
    level = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path.write_bytes(data[:at] + b"\x09\x00\x10\x10" + level[4:] + level * 3000 + data[at:])


@case(11, "deflate bomb", "inflates_too_far")
def _(folder: Path) -> None:
    bomb(folder / "a.dcm")


@case(12, "rows or columns zero or absurd", "bad_dimensions", "bad_dimensions")
def _(folder: Path) -> None:
    one(folder, "a", Rows=0)
    one(folder, "b", Columns=60000)


@case(12, "one pixel", "bad_dimensions")
def _(folder: Path) -> None:
    one(folder, hu=np.zeros((1, 1), dtype=int))


@case(13, "RGB, or wrong bits", "bad_pixel_format", "bad_pixel_format", "bad_pixel_format")
def _(folder: Path) -> None:
    one(folder, "a", PhotometricInterpretation="RGB", SamplesPerPixel=3)
    one(folder, "b", BitsAllocated=8, BitsStored=8, HighBit=7)
    one(folder, "c", BitsAllocated=32, BitsStored=32, HighBit=31)


@case(14, "no position: by SliceLocation", read=6, flags="no_position")
def _(folder: Path) -> None:
    for i in range(6):
        one(folder, f"{(i * 5) % 6}", ImagePositionPatient=None, SliceLocation=5.0 * i, InstanceNumber=9 - i)


@case(14, "no position and no SliceLocation: by InstanceNumber", read=6, flags="no_position")
def _(folder: Path) -> None:
    for i in range(6):
        one(folder, f"{(i * 5) % 6}", ImagePositionPatient=None, InstanceNumber=i)


@case(14, "one slice without position among others: interpolated, or quarantined", "no_place", read=6)
def _(folder: Path) -> None:
    for i in range(7):
        without = {"ImagePositionPatient": None} if i in {3, 6} else {}
        one(folder, f"{(i * 5) % 7}", z=5.0 * i, InstanceNumber=90 - i, **without)


@case(15, "position not numeric, NaN, or of wrong count", read=3, flags="no_position")
def _(folder: Path) -> None:
    for i, bad in enumerate((b"abcde\\-64.0\\77.75", b"nan  \\-64.0\\77.75", b"-64.00000\\77.7500")):
        patched(one(folder, str(i), z=77.75, SliceLocation=5.0 * i), b"-64.0\\-64.0\\77.75", bad)


@case(16, "one SOPInstanceUID twice", "duplicate_file", "duplicate_uid", "duplicate_uid", read=1)
def _(folder: Path) -> None:
    same = one(folder, "same")
    (folder / "copy.dcm").write_bytes(same.read_bytes())
    other = one(folder, "other", z=5.0)
    data = other.read_bytes()
    (folder / "changed.dcm").write_bytes(data[:-2] + b"\1\1")


@case(17, "two overlapping passes, told apart by their rescale", read=12)
def _(folder: Path) -> None:
    some(folder, [5.0 * i for i in range(6)], prefix="first")
    some(folder, [5.0 * i + 1 for i in range(6)], prefix="second", RescaleIntercept=-1000)


@case(17, "two slices at one place", read=7, flags="overlap")
def _(folder: Path) -> None:
    some(folder, [0.0, 5.0, 10.0, 10.0, 15.0, 20.0, 25.0])


@case(18, "localizers, by ImageType and by orientation", "localizer", "not_axial", read=1)
def _(folder: Path) -> None:
    one(folder, "good")
    one(folder, "a", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    one(folder, "b", ImageOrientationPatient=[0, 1, 0, 0, 0, -1])


@case(19, "bone and soft kernels in one study", *["other_series"] * 4, read=3)
def _(folder: Path) -> None:
    some(folder, [0.0, 5.0, 10.0], prefix="soft", SeriesInstanceUID="1.2.1", ConvolutionKernel="H30s")
    some(folder, [0.0, 3.0, 6.0, 9.0], prefix="bone", SeriesInstanceUID="1.2.2", ConvolutionKernel="H70h")


@case(20, "contrast agent", read=3, flags="contrast")
def _(folder: Path) -> None:
    some(folder, [0.0, 5.0, 10.0], ContrastBolusAgent="iodine")


@case(21, "gantry tilt", read=5)
def _(folder: Path) -> None:
    angle = np.deg2rad(20)
    cosines = [1.0, 0.0, 0.0, 0.0, round(float(np.cos(angle)), 6), round(float(np.sin(angle)), 6)]
    for i in range(5):
        position = [-64.0, -64.0, round(5.0 * i / float(np.cos(angle)), 4)]
        one(folder, f"{4 - i}", ImagePositionPatient=position, ImageOrientationPatient=cosines)


@case(22, "a gap", read=6, flags="gap")
def _(folder: Path) -> None:
    some(folder, [0.0, 5.0, 10.0, 35.0, 40.0, 45.0])


@case(23, "varying spacing", read=6)
def _(folder: Path) -> None:
    some(folder, [0.0, 4.0, 8.0, 13.0, 19.0, 25.0])


@case(24, "one slice", read=1)
def _(folder: Path) -> None:
    one(folder)


@case(24, "over a thousand slices", read=1001)
def _(folder: Path) -> None:
    data = one(folder, "0000", hu=head(0.0, 16), z=-1000.5).read_bytes()
    name = f"{folder.name}_0000".encode()
    for i in range(1, 1001):
        place = f"{i - 1000:07.1f}".encode()
        new = data.replace(name, f"{folder.name}_{i:04d}".encode()).replace(b"-1000.5", place)
        (folder / f"{i:04d}.dcm").write_bytes(new)


@case(25, "two patients in one study", "mixed_patients", "mixed_patients")
def _(folder: Path) -> None:
    one(folder, "a", patient="ID_one")
    one(folder, "b", patient="ID_two", z=5.0)


@case(26, "coronal and sagittal reformats", "not_axial", "not_axial")
def _(folder: Path) -> None:
    one(folder, "a", ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    one(folder, "b", ImageOrientationPatient=[0, 1, 0, 0, 0, -1])


@case(27, "no rescale", "no_rescale")
def _(folder: Path) -> None:
    one(folder, RescaleSlope=None, RescaleIntercept=None)


@case(27, "a modality LUT in place of a rescale", "modality_lut")
def _(folder: Path) -> None:
    dataset = dcmread(one(folder, RescaleSlope=None, RescaleIntercept=None))
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4, 0, 16])
    table.add_new("LUTData", "OW", bytes(8))
    table.ModalityLUTType = "HU"
    dataset.ModalityLUTSequence = [table]
    dataset.save_as(folder / f"{folder.name}_a.dcm")


@case(28, "another unit than HU", "not_hu", read=2)
def _(folder: Path) -> None:
    for i, unit in enumerate(("OD", "US", "HU")):
        one(folder, unit, z=5.0 * i, RescaleType=unit)


@case(28, "a slope of 1e-300", "bad_rescale")
def _(folder: Path) -> None:
    one(folder, RescaleSlope="1e-300")


@case(28, "slope 0, or absurd HU", "bad_rescale", "implausible_hu")
def _(folder: Path) -> None:
    one(folder, "a", RescaleSlope=0)
    one(folder, "b", RescaleIntercept=20000)


@case(29, "12-bit wrap", read=1, flags="wrap_suspected")
def _(folder: Path) -> None:
    hu = head(0.0)
    values = np.where(hu < 0, hu + 4096, hu).astype(np.uint16)
    about = {"PixelRepresentation": 0, "BitsStored": 12, "HighBit": 11, "RescaleIntercept": 0}
    one(folder, hu=hu, PixelData=values.tobytes(), **about)


@case(29, "12-bit header, air clipped to 0, metal at 3500: no wrap", read=1, flags="wrap_suspected")
def _(folder: Path) -> None:
    hu = np.clip(head(0.0), 0, None)
    hu[30:34, 30:34] = 3500
    about = {"PixelRepresentation": 0, "BitsStored": 12, "HighBit": 11, "RescaleIntercept": 0}
    one(folder, hu=hu, PixelData=hu.astype("<u2").tobytes(), **about)


@case(30, "padding value", read=1)
def _(folder: Path) -> None:
    values = (head(0.0) + 1024).astype("<i2")
    values[:8] = -2000
    one(folder, PixelPaddingValue=-2000, PixelData=values.tobytes())


@case(31, "MONOCHROME1", read=1)
def _(folder: Path) -> None:
    one(folder, PhotometricInterpretation="MONOCHROME1")


@case(32, "multi-valued and missing windows", read=2)
def _(folder: Path) -> None:
    one(folder, "a", WindowCenter=["40", "80", "600"], WindowWidth=["80"])
    one(folder, "b", z=5.0, WindowCenter=None, WindowWidth=None)


@case(33, "enhanced multi-frame CT", read=4)
def _(folder: Path) -> None:
    frames = [head(5.0 * i) for i in range(4)]
    dataset = dcmread(one(folder, ImagePositionPatient=None, ImageOrientationPatient=None, RescaleSlope=None))
    del dataset.RescaleIntercept, dataset.PixelSpacing
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.NumberOfFrames = 4
    dataset.PixelData = (np.stack(frames) + 1024).astype("<i2").tobytes()
    dataset.SharedFunctionalGroupsSequence = [
        nested(
            PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
            PixelMeasuresSequence={"PixelSpacing": [2.0, 2.0]},
            PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": -1024},
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        nested(PlanePositionSequence={"ImagePositionPatient": [-64.0, -64.0, 5.0 * i]}) for i in range(4)
    ]
    dataset.save_as(folder / f"{folder.name}_a.dcm", enforce_file_format=True)


def nested(**groups: dict[str, Any]) -> Dataset:
    """An item of functional groups."""
    item = Dataset()
    for name, elements in groups.items():
        inner = Dataset()
        for keyword, value in elements.items():
            setattr(inner, keyword, value)
        setattr(item, name, [inner])
    return item


@case(34, "JPEG Lossless, JPEG-LS, JPEG 2000, HTJ2K, RLE, deflated", read=6)
def _(folder: Path) -> None:
    for i, (name, syntax) in enumerate(SYNTAXES.items()):
        if name != "big_endian":
            about = {"study": f"ID_study_{folder.name}", "patient": f"ID_patient_{folder.name}"}
            write_encoded(folder, f"{folder.name}_{name}", syntax, z=5.0 * i, **about)


@case(35, "lossy", read=1, flags="lossy")
def _(folder: Path) -> None:
    path = write_encoded(
        folder,
        f"{folder.name}_a",
        SYNTAXES["jpeg_2000"],
        study=f"ID_study_{folder.name}",
        patient=f"ID_patient_{folder.name}",
        LossyImageCompression="01",
    )
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = JPEG2000
    dataset.save_as(path)


@case(36, "big endian", read=1)
def _(folder: Path) -> None:
    about = {"study": f"ID_study_{folder.name}", "patient": f"ID_patient_{folder.name}"}
    write_encoded(folder, f"{folder.name}_a", SYNTAXES["big_endian"], **about)


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
