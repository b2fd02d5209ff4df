"""What the fuzzers call: one function per target, which returns for any bytes, or raises where a law breaks.

The same functions serve ``tests/fuzz/fuzz.py``, which draws the bytes, and ``tests/fuzz/test_replay.py``,
which replays the stored ones.
"""

import atexit
import itertools
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from rsna_seq.config import IndexConfig
from rsna_seq.datasets.rsna2019.label_csv import read_labels, to_long
from rsna_seq.errors import IntegrityError, UsageError
from rsna_seq.imaging.archives import MARK
from rsna_seq.imaging.headers.batch import read_block
from rsna_seq.imaging.headers.elements import parse
from rsna_seq.imaging.headers.fields import Header
from rsna_seq.imaging.headers.frame import LARGEST, SMALLEST
from rsna_seq.imaging.headers.single import read_headers
from rsna_seq.imaging.pixels import read_hu
from rsna_seq.imaging.sources import Listing, digest_source, list_files
from rsna_seq.imaging.volume import AIR_HU
from rsna_seq.labels import CLASSES
from rsna_seq.reasons import ExclusionError
from rsna_seq.stages import index

SIZE = SMALLEST
"""Rows and columns of the good files: the fewest that are read."""
_NUMBERS = itertools.count()
_MOST_PIXELS = 1 << 20
"""Files of this size hold fewer pixels; more are not decoded here."""


class LawBrokenError(AssertionError):
    """What was returned contradicts the law of a target; ``kind`` is the same for the same contradiction."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


def headers(data: bytes, *, thorough: bool = True) -> str:
    """Header walk: parsed elements, then sound headers, then HU; or ``ExclusionError``, and nothing else."""
    path = _write(data, "slice.dcm")
    try:
        parsed = parse(str(path))
    except ExclusionError as error:
        return f"parse: {error.reason}"
    try:
        found = read_headers(str(path))
    except ExclusionError as error:
        return f"{error.reason}"
    _hold(bool(found), "no header and no reason")
    for header in found:
        _must_be_sound(header, parsed.size)
    header = found[0]
    if header["pixel_offset"] is None or header["rows"] * header["columns"] > _MOST_PIXELS:
        return f"read, {header['transfer_syntax']}"
    return f"read, {min(2, len(found))} frames, {_must_give_hu(path, header)}"


def pair(data: bytes, *, thorough: bool = True) -> str:
    """Differential pair: where the fast reader accepts a file, the slow one reads the same row.

    The file is read by ``read_block`` between two good ones, whose rows must not change.
    """
    fast, wrong = differences([good_slice(), data, good_slice()])
    for _, error in sorted(wrong.items()):
        raise error
    _hold({0, 2} <= fast, "a good file beside it was not accepted")
    return "accepted" if 1 in fast else "left to the slow reader"


def differences(files: Sequence[bytes]) -> tuple[set[int], dict[int, LawBrokenError]]:
    """Read some files by the fast reader, all at once, and compare what it accepts with the slow one.

    Returns:
        Numbers of the files that the fast reader accepts, and what is wrong with which of them.
    """
    paths = [_write(data, f"{number}.dcm") for number, data in enumerate(files)]
    stats = [path.stat() for path in paths]
    fast, others = read_block(
        str(_folder()),
        [path.name for path in paths],
        [stat.st_size for stat in stats],
        [stat.st_mtime_ns for stat in stats],
    )
    rows = {int(row.pop("at")): row for row in fast.to_dicts()}
    _hold(sorted([*rows, *others]) == list(range(len(files))), "a file is neither accepted nor named")
    wrong = {}
    for at, row in rows.items():
        try:
            _must_agree(row, paths[at])
        except LawBrokenError as error:
            wrong[at] = error
    return set(rows), wrong


def archive(data: bytes, *, thorough: bool = True) -> str:
    """Zip reader: a listing or ``IntegrityError``; every member is then a slice or has a reason.

    Args:
        data: The bytes.
        thorough: Index the archive too.
    """
    path = _write(data, f"{next(_NUMBERS)}.zip")  # a name of its own: opened archives are remembered by path
    try:
        listing = list_files(path)
        told = sorted(str(row["reason"]) for row in listing.aside)
        for name in listing.names:
            _hold(name.startswith(path.name + MARK), "a member without its archive")
            told.append(_must_open(f"{path.parent}/{name}"))  # a Path would change "a//b"
        if thorough:
            _must_account_for(listing, index.scan(path, IndexConfig()))
    except IntegrityError as error:
        return "refused: " + str(error).split("refused: ")[-1].split(";")[0][-24:]
    finally:
        path.unlink()
    return ", ".join(sorted(set(told))) or "empty"


def labels(data: bytes, *, thorough: bool = True) -> str:
    """Label CSV: a sound table or ``UsageError``, and nothing else; the long form reads back as the same."""
    path = _write(data, "labels.csv")
    try:
        table = read_labels(path)
    except UsageError as error:
        return "".join(c for c in str(error).replace(str(path), "")[:48] if c.isalpha() or c in " :,")
    wanted = {"slice": pl.String, **dict.fromkeys(CLASSES, pl.Int8)}
    _hold(dict(table.schema) == wanted, "columns or types", str(table.schema))
    _hold(sum(table.null_count().row(0)) == 0, "nulls")
    _hold(not table["slice"].is_duplicated().any(), "a slice twice")
    _hold(all(table[c].is_in([0, 1]).all() for c in CLASSES), "a label that is not 0 or 1")
    if thorough and len(table):
        to_long(table).write_csv(path)
        _hold(read_labels(path).equals(table), "the long form reads back otherwise")
    return f"{min(2, len(table))} slices"


TARGETS: dict[str, Callable[..., str]] = {
    "headers": headers,
    "pair": pair,
    "archive": archive,
    "labels": labels,
}


@cache
def _folder() -> Path:
    """A folder of this process, removed at its end."""
    folder = tempfile.mkdtemp(prefix="rsna_seq_fuzz_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def good_slice() -> bytes:
    """A good file."""
    from dicoms import head, write_slice

    with tempfile.TemporaryDirectory() as name:
        return write_slice(Path(name), "ID_good", hu=head(0.0, SIZE)).read_bytes()


def _write(data: bytes, name: str) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


def _hold(law: bool, kind: str, detail: str = "") -> None:
    if not law:
        raise LawBrokenError(kind, detail)


def _must_be_sound(header: Header, size: int) -> None:
    """Hold that a header says nothing impossible."""
    _hold(bool(header["study"] and header["slice"]), "no identifier")
    _hold(0 < header["rows"] <= LARGEST and 0 < header["columns"] <= LARGEST, "size of the image")
    _hold(0 < abs(header["slope"]) <= 100 and abs(header["intercept"]) <= 32768, "rescale")
    if header["pixel_offset"] is not None and header["transfer_syntax"] != "1.2.840.10008.1.2.1.99":
        _hold(
            header["pixel_offset"] + 2 * header["rows"] * header["columns"] <= size, "pixels beyond the file"
        )
    texts = [value for value in header.values() if isinstance(value, str)]
    _hold(not any(text.startswith("[(") for text in texts), "a sequence is taken for text")
    for text in texts:
        text.encode()


def _must_give_hu(path: Path, header: Header) -> str:
    """Hold that the pixels are HU, or that they are refused for a reason."""
    stat = path.stat()
    row = {**header, "file_size": stat.st_size, "file_mtime_ns": stat.st_mtime_ns}
    try:
        hu = read_hu(path, row)
    except ExclusionError as error:
        return str(error.reason)
    _hold(hu.shape == (header["rows"], header["columns"]), "shape")
    _hold(int(hu.min()) >= AIR_HU, "below air")
    return "HU"


def _must_agree(row: dict[str, Any], path: Path) -> None:
    """Hold that the slow reader reads a row as the fast one has it."""
    try:
        (header,) = read_headers(str(path))
    except ExclusionError as error:
        raise LawBrokenError(f"accepted by the fast reader only: {error.reason}", error.detail) from error
    slow = header
    differ = sorted(name for name in slow if not _same(slow[name], row[name]))
    _hold(not differ, f"differ in {', '.join(differ)}", f"{[(slow[n], row[n]) for n in differ]}")


def _must_open(path: str) -> str:
    """Hold that a member that was listed gives its header or a reason, and a digest or None."""
    whole = digest_source(path) is not None
    try:
        read_headers(path)
    except ExclusionError as error:
        return "excluded" if whole else f"unreadable, {error.reason}"
    return "read"


def _must_account_for(listing: Listing, scanned: index.Scan) -> None:
    """Hold that each member is a row of the slices or of the quarantine."""
    told = {*scanned.slices["file"], *scanned.quarantine["file"]}
    lost = sorted(set(listing.names) - told)
    _hold(not lost, "a member is neither read nor given a reason", repr(lost[:3]))


def _same(one: object, other: object) -> bool:
    """Equality of two cells, types included."""
    return one == other and type(one) is type(other)
