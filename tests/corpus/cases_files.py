"""Bad inputs: files that are cut, damaged or of another format, and image formats that are not read."""

from pathlib import Path

import numpy as np
from case_list import case, one, patched
from pydicom import dcmread
from transfer_syntaxes import bomb


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
