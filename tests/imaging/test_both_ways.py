"""The fast and the slow header reader over headers written byte by byte: where the fast one takes a file, its
row is the slow one's."""

import struct
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword
from test_elements import alone, block

from rsna_seq.imaging.headers.fields import COUNTS, SHORTS, TEXTS
from rsna_seq.reasons import ExclusionError

CT = "1.2.840.10008.5.1.4.1.1.2"
LONG = {"OB", "OW", "SQ", "UN", "UT", "UC"}
USUAL = {
    "SOPClassUID": CT,
    "SOPInstanceUID": "ID_1",
    "Modality": "CT",
    "PatientID": "ID_p",
    "StudyInstanceUID": "ID_s",
    "SeriesInstanceUID": "ID_r",
    "InstanceNumber": "7",
    "ImagePositionPatient": "-64\\-64\\5",
    "ImageOrientationPatient": "1\\0\\0\\0\\1\\0",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "Rows": 16,
    "Columns": 16,
    "PixelSpacing": "0.5\\0.5",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "PixelRepresentation": 1,
    "RescaleIntercept": "-1024",
    "RescaleSlope": "1",
}
WORDS = tuple(name for name in TEXTS if name not in COUNTS)
SIGNED_OR_NOT = "PixelPaddingValue"

ONE = (
    *(
        "0",
        "1",
        "-1",
        "+1",
        "0.5",
        "1.5",
        "5",
        "1e0",
        "1e3",
        "1e-1",
        "1E2",
        ".5",
        "1.",
        "-0",
        "2",
        "1.0",
        "100",
    ),
    *("1_000", "0x10", "inf", "nan", "NaN", "infinity", "1e300", "-1e300", "1e-300", "1e400", "0.01", "20"),
    *("0.49", "0.7", "4999", "5001", "99999", "2147483647", "2147483648", "32768", "32769"),
    *("", " ", "1 ", " 1", "1\0", "a", "1,5", "1 2", "--1", "e1", "1d0", "\u0661", "1\t"),
    *("0." + "3" * 40, "1" * 300),
)
TEXT = (
    *(
        "",
        " ",
        "\0",
        "A",
        " A",
        "A ",
        "A\0",
        "A \0",
        "\0A",
        "A\0B",
        "1",
        "-",
        "#",
        "a,b",
        "null",
        "NaN",
        '"q"',
    ),
    *("A\\B", "A \\B", "A\\ B", "\\", "A\\", "\\A", "A\\\\B", "axial\\original"),
    *("CT", "MR", "HU", "US", "OD", "hu", "01", "00", "MONOCHROME1", "PALETTE COLOR"),
    *(CT, f"{CT}.1", f"{CT}2", "1.2.840.10008.5.1.4.1.1.7"),
    *(
        "ISO_IR 100",
        "ISO_IR 13",
        "ISO_IR 192",
        "ISO_IR 999",
        "utf-16",
        "cp037",
        "ISO 2022 IR 6\\ISO 2022 IR 87",
    ),
    *("M\xfcller", "a~b", "a\x7f", "\x1b$B", "a\nb", "a\x1fb", "x" * 256, "x" * 258),
)


def quirk(random: Random) -> tuple[str, str | int]:
    """One element with a value that is unusual."""
    kind = random.choice(["number", "number", "text", "text", "short", "padding"])
    if kind == "number":
        name = random.choice(sorted(COUNTS))
        count = random.choice([COUNTS[name]] * 6 + [1, 2, 4])
        usual = str(USUAL.get(name, "1")).split("\\")
        parts = (usual * count)[:count]
        for _ in range(random.randint(1, 2)):
            parts[random.randint(0, count - 1)] = random.choice(ONE)
        return name, "\\".join(parts)
    if kind == "text":
        return random.choice(WORDS), random.choice(TEXT)
    if kind == "short":
        return random.choice([name for name in SHORTS if name != SIGNED_OR_NOT]), random.choice(
            [0, 1, 2, 8, 12, 15, 16, 17, 65535]
        )
    return SIGNED_OR_NOT, random.choice([0, 1, 32767, 32768, 63536, 65535])


def element(tag: int, vr: str, value: bytes, *, implicit: bool) -> bytes:
    """One element as bytes, whatever its value."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack("<I", len(value)) + value
    if vr in LONG:
        return head + vr.encode() + struct.pack("<HI", 0, len(value)) + value
    return head + vr.encode() + struct.pack("<H", len(value)) + value


def encoded(value: str | int, *, pad: bool) -> bytes:
    """A value as bytes, of even length unless asked."""
    if isinstance(value, int):
        return struct.pack("<H", value)
    raw = value.encode("latin-1" if value.isascii() or max(value) < "\u0100" else "utf-8")
    return raw + b" " * (len(raw) % 2) if pad else raw


def slow(path: Path) -> dict[str, object]:
    """What the slow reader says of a file."""
    try:
        return alone(path)
    except ExclusionError as error:
        return {"refused": str(error)}


def elements_of(values: dict[str, str | int]) -> list[tuple[int, str, bytes]]:
    """Tag, representation and bytes of each element, in order."""
    tags = {name: int(tag_for_keyword(name) or 0) for name in values}
    return sorted(
        (tag, dictionary_VR(tag).split(" or ")[0], encoded(values[name], pad=True))
        for name, tag in tags.items()
    )


def body(elements: list[tuple[int, str, bytes]], *, implicit: bool, pixel_vr: str = "OW") -> bytes:
    """A data set with pixels."""
    pixels = element(0x7FE00010, pixel_vr, bytes(2 * 16 * 16), implicit=implicit)
    return b"".join(element(*each, implicit=implicit) for each in elements) + pixels


def preamble(kind: str, *, implicit: bool, junk: str = "") -> bytes:
    """Preamble and file meta group of a SOP class."""
    syntax = "1.2.840.10008.1.2" + ("" if implicit else ".1") + junk
    told = ((2, kind), (16, syntax))
    group = [element(0x00020000 | n, "UI", encoded(text, pad=True), implicit=False) for n, text in told]
    return bytes(128) + b"DICM" + b"".join(group)


def draw_file(random: Random) -> bytes:
    """A usual file with quirks of values, of the meta group, of order and of representation."""
    implicit = random.random() < 0.5
    values = dict(USUAL) | dict(quirk(random) for _ in range(random.choice([0, 1, 1, 1, 2])))
    if random.random() < 0.1:
        values.pop(random.choice(sorted(USUAL)))
    elements, pixel_vr, kind, junk = elements_of(values), "OW", CT, ""
    odd = random.choice(
        ["", "", "", "", "", "", "", "", "", "vr", "length", "twice", "order", "frames", "pixels", "meta"]
    )
    at = random.randint(0, len(elements) - 1)
    tag, vr, raw = elements[at]
    if odd == "vr":
        elements[at] = (
            tag,
            random.choice(["SS", "US", "LO", "UN", "DS", "IS", "UT", "ZZ"]),
            raw,
        )
    elif odd == "length":
        elements[at] = (tag, vr, raw[:-1] if raw else b"x")
    elif odd == "twice":
        elements.insert(at, elements[at])
    elif odd == "order":
        elements[at], elements[0] = elements[0], elements[at]
    elif odd == "frames":
        elements.append((0x52009230, "SQ", b""))
    elif odd == "pixels":
        pixel_vr = random.choice(["OB", "UN", "US", "SS"])
    elif odd == "meta":
        junk = random.choice(["", " ", "\0\0", " " * 60 + "x", "\0x"])
        directory = "1.2.840.10008.1.3.10"
        kind = random.choice([directory, directory + " " * 9, " " + directory, "", "9"])
    return preamble(kind, implicit=implicit, junk=junk) + body(elements, implicit=implicit, pixel_vr=pixel_vr)


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32))
def test_where_the_fast_reader_takes_a_header_it_reads_what_the_slow_one_does(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    random, folder = Random(seed), tmp_path_factory.mktemp("headers")
    for number in range(150):
        (folder / f"{number}.dcm").write_bytes(draw_file(random))
    taken = block(folder)
    assert len(taken) > 20
    for name, row in taken.items():
        assert row == slow(folder / name), (folder / name).read_bytes()[:-512]


@pytest.mark.parametrize("implicit", [False, True])
def test_a_usual_header_is_taken_by_the_fast_reader(tmp_path: Path, implicit: bool) -> None:
    for name, changes in {"a": {}, "b": {"RescaleType": "HU", "SpecificCharacterSet": "ISO_IR 100"}}.items():
        values = {**USUAL, **changes}
        file = preamble(CT, implicit=implicit) + body(elements_of(values), implicit=implicit)
        (tmp_path / f"{name}.dcm").write_bytes(file)
    assert set(block(tmp_path)) == {"a.dcm", "b.dcm"}
