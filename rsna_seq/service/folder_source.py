"""Studies in a folder: one is complete when nothing of it has changed for ``service.stable_s``.

1. Every look lists the folder. The header of a new or changed file tells its study; the members of a zip file
   belong to their own studies. Hidden files, links and files that are not DICOM are ignored.
2. Damaged files without a StudyInstanceUID belong to the study of their folder; if it has none or several,
   they are a study of their own, which fails with its reason.
3. A study that has not changed is put into the queue. Its signature (names, sizes, times) is noted there, so
   that after a restart an unchanged study is not read again.
"""

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rsna_seq.config import ServiceConfig
from rsna_seq.console import say
from rsna_seq.errors import IntegrityError
from rsna_seq.imaging.archives import joined, members
from rsna_seq.imaging.folders import escaped, is_bad_name
from rsna_seq.imaging.headers.elements import parse
from rsna_seq.reasons import Action, ExclusionError
from rsna_seq.service.jobs import digest_of, signature_of
from rsna_seq.service.queue import Queue
from rsna_seq.service.source import Inbox, SourceError, TooLargeError, put

_UNKNOWN = ""
"""Study of a damaged file."""


@dataclass(frozen=True)
class _Known:
    """What is known of a file: size and time when it was read, and its instances by study."""

    size: int
    mtime_ns: int
    studies: dict[str, list[str]]


@dataclass
class _Unit:
    """A study as it is found in one look.

    Attributes:
        study: StudyInstanceUID, or what the files are.
        files: Paths of files; of archive members as ``archive.zip!/member``.
        parts: Names, sizes and times of the files.
    """

    study: str
    files: list[str] = field(default_factory=list)
    parts: list[tuple[object, ...]] = field(default_factory=list)


class FolderSource:
    """A folder that is looked at again and again.

    Args:
        folder: The folder, with any subfolders.
        queue: Receives the studies.
        inbox: Receives the members of zip files.
        cfg: Times and limits.
    """

    def __init__(self, folder: Path, queue: Queue, inbox: Inbox, cfg: ServiceConfig) -> None:
        self.folder, self.queue, self.inbox, self.cfg = folder.resolve(), queue, inbox, cfg
        self.name = f"folder {self.folder}"
        self._known: dict[str, _Known] = {}
        self._seen: dict[str, tuple[str, float]] = {}
        self._arriving: set[str] = set()
        queue.forget_arriving(self.name)

    def poll(self) -> bool:
        """Look once; see :class:`rsna_seq.service.source.Source`."""
        arriving = False
        units = self._units()
        for key, unit in units.items():
            signature = signature_of(unit.parts)
            if self.queue.mark(self.name, key) == signature:
                continue
            if key not in self._arriving:
                self.queue.arriving(self.name, key, unit.study)
                self._arriving.add(key)
            before, since = self._seen.get(key, ("", 0.0))
            if before != signature:
                self._seen[key] = (signature, time.monotonic())
                arriving = True
            elif time.monotonic() - since < self.cfg.stable_s or self._is_full():
                arriving = True
            else:
                self._complete(key, unit, signature)
                arriving = arriving or key in self._arriving
        for key in self._arriving - set(units):
            self.queue.forget(self.name, key)
            self._arriving.discard(key)
            self._seen.pop(key, None)
        return arriving

    def close(self) -> None:
        """Nothing is open."""

    def _is_full(self) -> bool:
        return self.queue.waiting() >= self.cfg.max_waiting

    def _complete(self, key: str, unit: _Unit, signature: str) -> None:
        """Put a study that has not changed into the queue."""
        arrived, mark = (self.name, key, unit.study), (self.name, key, signature)
        try:
            if any("!/" in path and not os.path.lexists(path) for path in unit.files):
                folder = self.inbox.new()
                try:
                    files = self.inbox.copy(sorted(unit.files), folder)
                except BaseException:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
                put(self.queue, arrived, self.inbox, folder, files, mark)
            else:
                files = [Path(path) for path in unit.files]
                self.queue.complete(arrived, digest_of(files), files, mark=mark)
        except TooLargeError as error:
            kept, _ = self.queue.complete(arrived, signature, [], mark=mark)
            self.queue.failed(kept, str(error))
            say("watch", f"study {unit.study}: failed: {error}")
        except OSError as error:
            say("watch", f"study {unit.study}: not complete yet: {error}")
            self._seen.pop(key)  # a file has changed or gone meanwhile: look again
            return
        self._arriving.discard(key)
        self._seen.pop(key)

    def _units(self) -> dict[str, _Unit]:
        """The studies in the folder, by key."""
        units: dict[str, _Unit] = {}
        damaged: list[tuple[str, _Known]] = []
        studies: dict[str, set[str]] = defaultdict(set)
        listed = dict(self._listed())
        for path, known in listed.items():
            for study, files in known.studies.items():
                if study == _UNKNOWN:
                    damaged.append((path, known))
                    continue
                unit = units.setdefault(f"study {study}", _Unit(study))
                unit.files += files
                unit.parts += [(file, known.size, known.mtime_ns) for file in files]
                studies[os.path.dirname(path)].add(study)  # noqa: PTH120
        for path, known in damaged:
            folder = os.path.dirname(path)  # noqa: PTH120
            own = studies[folder]
            where = escaped(os.path.relpath(folder, self.folder))
            key = f"study {next(iter(own))}" if len(own) == 1 else f"damaged {where}"
            unit = units.setdefault(key, _Unit(f"damaged files in {where}"))
            unit.files += known.studies[_UNKNOWN]
            unit.parts += [(path, known.size, known.mtime_ns)]
        self._known = listed
        return units

    def _listed(self) -> Iterator[tuple[str, _Known]]:
        """Every file below the folder; only what changed since the last look is read."""
        for path, status in _files(self.folder):
            known = self._known.get(path)
            if known is None or (known.size, known.mtime_ns) != (status.st_size, status.st_mtime_ns):
                known = _Known(status.st_size, status.st_mtime_ns, _studies_of(path))
            yield path, known


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Regular files below a folder that are not hidden, with their status."""
    waiting = [str(folder)]
    while waiting:
        top = waiting.pop()
        try:
            with os.scandir(top) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if top == str(folder):
                raise SourceError(f"{folder}: cannot be listed: {error.strerror}") from error
            continue
        for entry in listed:
            if entry.name.startswith(".") or is_bad_name(entry.name):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    yield entry.path, entry.stat(follow_symlinks=False)
            except OSError:
                continue  # it has gone meanwhile


def _studies_of(path: str) -> dict[str, list[str]]:
    """The instances of a file by study; those of an archive are its members."""
    names = [path]
    if path.lower().endswith(".zip"):
        try:
            names = [joined(path, name) for name, _ in members(path)[0]]
        except (ExclusionError, IntegrityError):
            return {_UNKNOWN: [path]}  # the reason is found again when it is scored
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        try:
            study = str(parse(name).dataset.get("StudyInstanceUID", "") or "").strip()
        except ExclusionError as error:
            if error.action == Action.SKIPPED:
                continue
            study = _UNKNOWN
        found[study].append(name)
    return dict(found)
