"""Bad inputs: positions, passes, series, patients and orientations."""

from pathlib import Path

import numpy as np
from case_list import case, one, patched, some
from dicoms import head


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
