"""Mutations that know the format: elements of a header, members of an archive, cells of a table.

Bytes that change at random seldom leave a header that both readers walk to its end. Each function draws one
change with ``random`` and gives other bytes; ``other`` changes bytes without knowing anything of them.
"""

import io
import struct
import zipfile
from collections.abc import Callable
from random import Random

from pydicom.datadict import tag_for_keyword

from rsna_seq.imaging.headers.elements import LONG_VRS, UNDEFINED
from rsna_seq.imaging.headers.fields import SHORTS, TEXTS
from rsna_seq.labels import CLASSES

Other = Callable[[bytes], bytes]
Element = tuple[bytes, bytes, bytes]
"""Tag, value representation (empty where it is implicit), value."""
_WORDS = (
    "| |0|1|2|-1|+1|01|1.0|1.|.5|1e0|1e300|1e-300|-0|nan|inf|-inf|infinity|1_0|0x10|1d0|1,5|1 2|2147483648"
    "|-2000|32768|65536|100.0000001|0.5\\0.5|0\\0|-1\\1|a\\b|\\|\\1|1\\|\\1\\0|1\\2|1\\2\\3|1\\\\3"
    "| 1 \\ 2 \\ 3 |1\\0\\0\\0\\1\\0|CT|ct|MR|CT |CT\\MR|MONOCHROME2|RGB|ISO_IR 100|ISO_IR 192|00|=1+1|\"|'|#"
    "|1.2.840.10008.5.1.4.1.1.2|1.2.840.10008.5.1.4.1.1.7|\0|\0\0| \0|\x001|1\0|1\0\0|1\t|\n1|\r|\x1b$B|\xff"
    "|\xc3\xa9|\x00\x80|\x10\x00|\x0c\x00|\x08\x00|\x01\x00|\x01\x01|\xff\xff|\x01\x00\x02\x00"
)
_VALUES = [word.encode("latin-1") for word in _WORDS.split("|")]
_VALUES += [b"x" * 256, b"x" * 258, b"1" * 17, b"9" * 30]
_SYNTAXES = [
    f"1.2.840.10008.1.2{end}".encode() for end in ("", ".1", ".2", ".5", ".1.99", ".4.50", ".4.70", ".4.90")
]
_NAMES = "UN OB OW SQ DS IS US SS LO SH UI CS PN LT UL ??"
_VRS = [name.encode() for name in _NAMES.split()]
_TAGS = [
    struct.pack("<HH", int(tag_for_keyword(name) or 0) >> 16, int(tag_for_keyword(name) or 0) & 0xFFFF)
    for name in (*TEXTS, *SHORTS, "SpecificCharacterSet", "PerFrameFunctionalGroupsSequence", "FrameTime")
]


def split(data: bytes) -> tuple[bytes, list[Element], bytes]:
    """What stands before the data set, its elements as far as they can be walked, and what is left."""
    at = 132 if data[128:132] == b"DICM" else 0
    while data[at : at + 2] == b"\2\0" and len(data) >= at + 12:
        long = data[at + 4 : at + 6] in LONG_VRS
        at += (
            12 + struct.unpack_from("<I", data, at + 8)[0]
            if long
            else 8 + struct.unpack_from("<H", data, at + 6)[0]
        )
    start, elements = min(at, len(data)), []
    at = start
    while len(data) >= at + 12:
        tag, vr = data[at : at + 4], data[at + 4 : at + 6]
        vr = vr if vr.isalpha() else b""
        if vr in LONG_VRS:
            head, length = 12, struct.unpack_from("<I", data, at + 8)[0]
        elif vr:
            head, length = 8, struct.unpack_from("<H", data, at + 6)[0]
        else:
            head, length = 8, struct.unpack_from("<I", data, at + 4)[0]
        if length == UNDEFINED or at + head + length > len(data):
            break
        elements.append((tag, vr, data[at + head : at + head + length]))
        at += head + length
    return data[:start], elements, data[at:]


def join(elements: list[Element]) -> bytes:
    """The bytes of some elements."""
    made = []
    for tag, vr, value in elements:
        if vr in LONG_VRS:
            made.append(tag + vr + b"\0\0" + struct.pack("<I", len(value)))
        elif vr:
            made.append(tag + vr + struct.pack("<H", len(value) & 0xFFFF))
        else:
            made.append(tag + struct.pack("<I", len(value)))
        made.append(value)
    return b"".join(made)


def slice_file(data: bytes, random: Random, other: Other) -> bytes:
    """Change a slice: its transfer syntax, or one to three of its elements."""
    begin, elements, end = split(data)
    if not elements or random.random() < 0.15:
        return other(data)
    if random.random() < 0.06:
        old, new = random.choice(_SYNTAXES), random.choice(_SYNTAXES)
        begin = begin.replace(
            old.ljust(len(old) + len(old) % 2, b"\0"), new.ljust(len(old) + len(old) % 2, b"\0"), 1
        )
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        at = random.randrange(len(elements))
        tag, vr, value = elements[at]
        kind = random.random()
        if kind < 0.55:
            value = random.choice(_VALUES) if random.random() < 0.7 else other(value or b" ")[:400]
            pad = random.choice((b" ", b" ", b" ", b"\0", b""))
            elements[at] = tag, vr, value + pad * (len(value) % 2)
        elif kind < 0.65 and vr:
            elements[at] = tag, random.choice(_VRS), value
        elif kind < 0.72 and len(elements) > 1:
            del elements[at]
        elif kind < 0.8:
            elements.insert(at, elements[random.randrange(len(elements))])
        elif kind < 0.88:
            elements[at] = random.choice(_TAGS), vr, value
        elif kind < 0.96:
            elements.append(
                (random.choice(_TAGS), random.choice(_VRS) if vr else b"", random.choice(_VALUES))
            )
            elements.sort(key=lambda e: struct.unpack("<HH", e[0]))
        else:
            end = other(end or b"\0")
    return begin + join(elements) + end


def archive(data: bytes, random: Random, other: Other) -> bytes:
    """Change an archive: a member's bytes with a checksum that holds, its name, or the directory."""
    at, kind = data.find(b"PK\1\2"), random.random()
    if kind < 0.45 or at < 0:
        try:
            return _packed_again(data, random, other)
        except Exception:  # whatever cannot be read as an archive is changed without knowing it
            return other(data)
    if kind < 0.85:  # one field of a directory entry or of a member's own header
        marks = [i for mark in (b"PK\1\2", b"PK\3\4", b"PK\5\6") for i in _all(data, mark)]
        where = random.choice(marks) + random.randrange(4, 46)
        new = random.choice((b"\0", b"\1", b"\xff", b"\x7f", b"\x80", bytes([random.randrange(256)])))
        return (
            data[:where]
            + new * random.choice((1, 1, 2, 4))
            + data[where + 1 :][random.choice((0, 0, 1, 3)) :]
        )
    return other(data)


def _all(data: bytes, mark: bytes) -> list[int]:
    return [i for i in range(len(data)) if data.startswith(mark, i)]


def _packed_again(data: bytes, random: Random, other: Other) -> bytes:
    """The same members, one of them changed, packed by any method."""
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        members = [(info, packed.read(info)) for info in packed.infolist()[:4]]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for info, content in members:
            name = info.filename
            if random.random() < 0.3:
                name = random.choice(
                    ("a\\b", "../a", "/a", "C:a", "a!/b", "a.zip!/b", "é", "\udcff", "a/", "", "A" * 300)
                )
            new = zipfile.ZipInfo(name)
            new.external_attr = random.choice((0, 0, 0o120777 << 16, 0o100644 << 16, 16))
            method = random.choice((0, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
            body = slice_file(content, random, other) if random.random() < 0.5 else content
            archive.writestr(new, body, method)
    return made.getvalue()


def table(data: bytes, random: Random, other: Other) -> bytes:
    """Change a CSV: one cell, one line, or its separators and line ends."""
    lines, kind = data.split(b"\n"), random.random()
    at = random.randrange(len(lines))
    if kind < 0.45:
        cells = lines[at].split(b",")
        words = [
            b"",
            b"0",
            b"1",
            b"0.0",
            b"1.0",
            b"2",
            b"-0",
            b"nan",
            b"null",
            b"true",
            b" 1",
            b"1e0",
            b'"1"',
            b'"',
        ]
        words += [
            b"ID_a_any",
            b"_any",
            b"ID_a_" + random.choice(CLASSES).encode(),
            b"any",
            b"name",
            b"\xff",
            b"ID",
        ]
        cells[random.randrange(len(cells))] = random.choice(words)
        lines[at] = b",".join(cells)
    elif kind < 0.6:
        lines.insert(at, random.choice((b"", b",", lines[random.randrange(len(lines))], b"#", b"\r")))
    elif kind < 0.7:
        del lines[at]
    elif kind < 0.75:
        return data.replace(
            *random.choice(((b",", b";"), (b"\n", b"\r\n"), (b"\n", b"\r"), (b",", b"\t"), (b"0", b"")))
        )
    else:
        return other(data)
    return b"\n".join(lines)


MUTATORS: dict[str, Callable[[bytes, Random, Other], bytes]] = {
    "headers": slice_file,
    "pair": slice_file,
    "archive": archive,
    "labels": table,
}
