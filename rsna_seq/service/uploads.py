"""Uploads: a request's body is streamed to the disk with limits, and sorted into studies.

1. :class:`Upload` writes the parts of a multipart body, or a single zip file or DICOM file, as they arrive.
   The names that a client gives are not used.
2. :func:`sort_upload` reads the headers, copies the members of zip files (checked before, never unpacked as a
   whole), and puts each study into the queue with a folder of its own.
"""

import os
import shutil
from collections import defaultdict
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO

from rsna_seq.errors import IntegrityError
from rsna_seq.imaging.archives import MARK, joined, members
from rsna_seq.imaging.headers.elements import parse
from rsna_seq.reasons import Action, ExclusionError
from rsna_seq.service.queue import Queue
from rsna_seq.service.source import Inbox, TooLargeError, put

SOURCE = "upload"
"""Name of the source of uploaded studies."""
_SINGLE = {
    *("application/zip", "application/x-zip-compressed", "application/dicom", "application/octet-stream"),
}
_MULTIPART = {"multipart/form-data", "multipart/related"}
_MAGIC = b"PK"


class UploadError(Exception):
    """An upload is not usable; the message says why.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Sorted:
    """What an upload has brought.

    Attributes:
        jobs: Numbers of its studies in the queue.
        fresh: How many of them will be scored now; the others were answered before.
        ignored: Number of files that belong to no study.
    """

    jobs: list[int]
    fresh: int
    ignored: int


class Upload:
    """Receives the body of a request.

    Args:
        folder: An empty folder for the files.
        content_type: Header of the request.
        inbox: Limits.

    Raises:
        UploadError: The type is not supported (415), or has no boundary (400).
    """

    def __init__(self, folder: Path, content_type: str, inbox: Inbox) -> None:
        self.folder, self.cfg = folder, inbox.cfg
        self._left = self.cfg.max_upload_mb * 1_000_000
        self._file: BinaryIO | None = None
        self._ended = False
        self.files: list[Path] = []
        kind = Message()
        kind["content-type"] = content_type or "application/octet-stream"
        name = kind.get_content_type()
        if name not in _SINGLE | _MULTIPART:
            given = content_type.split(";", maxsplit=1)[0][:100]
            raise UploadError(415, f"{given} is not supported: send a zip file, DICOM, or multipart")
        self._parser = _parser(str(kind.get_param("boundary", "")), self) if name in _MULTIPART else None
        if self._parser is None:
            self.begin()

    def write(self, chunk: bytes) -> None:
        """Write the next bytes of the body.

        Raises:
            TooLargeError: There are more bytes or files than the limits allow.
            UploadError: The body is not valid.
            OSError: The disk is full.
        """
        from python_multipart.exceptions import FormParserError

        self._left -= len(chunk)
        if self._left < 0:
            raise TooLargeError(f"more than {self.cfg.max_upload_mb:,} MB (service.max_upload_mb)")
        if self._parser is None:
            self.data(chunk, 0, len(chunk))
            return
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise UploadError(400, "the multipart body is not valid") from None

    def begin(self) -> None:
        """A file begins."""
        if len(self.files) >= self.cfg.max_files:
            raise TooLargeError(f"more than {self.cfg.max_files:,} files (service.max_files)")
        self.files.append(self.folder / f"{len(self.files):06d}.dcm")
        self._file = self.files[-1].open("wb")

    def data(self, data: bytes, start: int, end: int) -> None:
        """Bytes of the file."""
        assert self._file is not None
        self._file.write(data[start:end])

    def end(self) -> None:
        """The file ends; a zip file gets its name."""
        assert self._file is not None
        self._file.close()
        self._file = None
        path = self.files[-1]
        with path.open("rb") as file:
            is_zip = file.read(2) == _MAGIC
        if is_zip:
            self.files[-1] = path.rename(path.with_suffix(".zip"))

    def whole(self) -> None:
        """The last part of a multipart body has ended."""
        self._ended = True

    def finish(self) -> None:
        """The body ends.

        Raises:
            UploadError: It is cut short, or contains no file.
        """
        if self._parser is None:
            self.end()
        elif not self._ended:
            raise UploadError(400, "the multipart body ends too early")
        if not any(path.stat().st_size for path in self.files):
            raise UploadError(400, "the upload contains no file")

    def close(self) -> None:
        """Close what is open; the folder remains."""
        if self._file is not None:
            self._file.close()


def _parser(boundary: str, upload: Upload) -> Any:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    calls: Any = {
        "on_part_begin": upload.begin,
        "on_part_data": upload.data,
        "on_part_end": upload.end,
        "on_end": upload.whole,
    }
    wrong = UploadError(400, "the multipart type has no valid boundary")
    if not boundary:
        raise wrong
    try:
        return MultipartParser(boundary, calls)
    except (FormParserError, ValueError):
        raise wrong from None


def sort_upload(upload: Upload, queue: Queue, inbox: Inbox) -> Sorted:
    """Put the studies of a received upload into the queue.

    Args:
        upload: The upload, received as a whole.
        queue: The queue.
        inbox: Receives one folder per study.

    Raises:
        UploadError: It contains no study (422), or a refused archive (422).
        TooLargeError: A study is too large, or there are more studies than may wait.
    """
    studies, damaged = _studies_of(_names(upload))
    if not studies:
        why = "; ".join(dict.fromkeys(damaged.values())) or "no DICOM file"
        raise UploadError(422, f"no file with a StudyInstanceUID: {why}")
    if len(studies) > upload.cfg.max_waiting:
        raise TooLargeError(f"{len(studies):,} studies, more than may wait (service.max_waiting)")
    if len(studies) == 1:
        next(iter(studies.values())).extend(damaged)  # they are counted in its result
        damaged = {}
    jobs, fresh = [], 0
    for study, names in studies.items():
        folder = inbox.new()
        try:
            files = _taken(names, folder, inbox)
            kept, is_fresh = put(queue, (SOURCE, folder.name, study), inbox, folder, files)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        jobs.append(kept)
        fresh += is_fresh
    return Sorted(jobs, fresh, len(damaged))


def _studies_of(names: list[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Files and members of archives by study, and those without one with the reason."""
    studies: dict[str, list[str]] = defaultdict(list)
    without: dict[str, str] = {}
    for name in names:
        try:
            study = str(parse(name).dataset.get("StudyInstanceUID", "") or "").strip()
        except ExclusionError as error:
            without[name] = error.reason.sentence
            if error.action == Action.SKIPPED:
                continue
            study = ""
        if study:
            studies[study].append(name)
        else:
            without.setdefault(name, "no StudyInstanceUID")
    return dict(studies), without


def _names(upload: Upload) -> list[str]:
    """Paths of files and of the members of archives, within the limits."""
    names: list[str] = []
    left, cfg = upload.cfg.max_upload_mb * 1_000_000, upload.cfg
    for file in upload.files:
        if file.suffix != ".zip":
            names.append(str(file))
            continue
        try:
            found = members(str(file))[0]
        except ExclusionError as error:
            raise UploadError(422, f"the zip file cannot be read: {error.reason.sentence}") from None
        except IntegrityError as error:
            why = str(error).split("refused: ")[-1].split("; if you trust")[0]
            raise UploadError(422, f"the zip file is refused: {why}") from None
        names += [joined(str(file), name) for name, _ in found]
        left -= sum(size for _, size in found)
        if left < 0:
            raise TooLargeError(f"unpacked more than {cfg.max_upload_mb:,} MB (service.max_upload_mb)")
        if len(names) > cfg.max_files:
            raise TooLargeError(f"more than {cfg.max_files:,} files (service.max_files)")
    return names


def _taken(names: list[str], folder: Path, inbox: Inbox) -> list[Path]:
    """Move files and copy members of archives into the folder of a study."""
    packed = [name for name in names if MARK in name and not os.path.lexists(name)]
    moved = inbox.copy(packed, folder)
    for name in set(names) - set(packed):
        target = folder / f"u{Path(name).name}"
        moved.append(Path(name).rename(target))
    return moved
