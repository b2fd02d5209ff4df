"""Rules for which folders may be written to, and which files in them may be deleted.

A command deletes only files that are listed in the manifest or the journal of its folder, and never through a
link. It refuses a folder in which other files could be lost (exit 2), before it writes anything there.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePosixPath

from rsna_seq.errors import IntegrityError, UsageError
from rsna_seq.store.files import LOCK, recording, remove_parts, write_text

MANIFEST = "manifest.json"
UNFINISHED = "unfinished.json"
JOURNAL = "journal.jsonl"
_PARTS_OF_A_RUN = re.compile(r"\d_[a-z]+|phantoms|unseen_phantoms")
"""Subfolders of a run; a run may contain no other output."""


def must_be_safe(
    out: Path, kind: str, sources: Sequence[Path] = (), *, option: str = "--out", own: str | None = None
) -> None:
    """Refuse an output folder in which files that this package did not write could be lost.

    Args:
        out: The output folder; it need not exist.
        kind: First word of the stage whose artefact it may already contain.
        sources: Input folders and files: images, labels, runs.
        option: The option that names the folder, for messages.
        own: A file by which the folder is known instead of by a manifest, or None.

    Raises:
        UsageError: ``out`` is a file; is or contains ``/``, the home folder, a checkout or a run; is inside a
            run; contains or is inside a source; or is not empty and contains no artefact of this kind.
    """
    place = out.absolute().resolve()
    whole = next((p for p in (place, *place.parents) if p.exists()), place)
    fault = (
        (f"{whole} is not a folder" if not whole.is_dir() else None)
        or _protected(place)
        or _overlaps_input(place, sources)
        or _inside_a_run(place, kind)
        or (None if own and (place / own).is_file() else _other_content(place, kind))
    )
    if fault is not None:
        raise UsageError(f"{option} {out}: refused: {fault}; nothing was changed. Choose another folder")


def _protected(place: Path) -> str | None:
    """Return why a folder must never be used as an output folder, or None."""
    home = Path.home().resolve()
    if place == Path(place.anchor) or home == place or place in home.parents:
        return "it is the root or the home folder, or contains it"
    return "it is a git checkout" if (place / ".git").exists() else None


def _overlaps_input(place: Path, sources: Iterable[Path]) -> str | None:
    """Return how a folder overlaps with an input, as a sentence, or None."""
    for source in sources:
        read = source.absolute().resolve()
        if read == place or place in read.parents:
            return f"it contains the input {source}"
        if read in place.parents and not _part_of_run(place, read):
            return f"it is inside the input {source}"
    return None


def _part_of_run(place: Path, run: Path) -> bool:
    """Whether a folder is a subfolder of a run."""
    return is_run(run) and _PARTS_OF_A_RUN.fullmatch(place.relative_to(run).parts[0]) is not None


def _inside_a_run(place: Path, kind: str) -> str | None:
    """Return why a folder is a run, or inside a run or artefact that it is no part of, or None."""
    if is_run(place):
        return "it is the folder of a run"
    for parent in place.parents:
        if is_run(parent) and not _part_of_run(place, parent):
            return f"it is inside the run {parent}"
        if (parent / MANIFEST).exists() and _kind_of(parent) != kind:
            return f"it is inside {parent}, which contains the results of {_kind_of(parent)!r}"
    return None


def is_run(folder: Path) -> bool:
    """Whether a folder contains the artefact of a stage, and so is a run."""
    try:
        children = [e.name for e in os.scandir(folder) if re.fullmatch(r"\d_[a-z]+", e.name)]
    except OSError:
        return False
    return any((folder / name / file).exists() for name in children for file in (MANIFEST, UNFINISHED))


def _other_content(place: Path, kind: str) -> str | None:
    """Return what a folder contains instead of an artefact of this kind, or None."""
    found = _kind_of(place)
    if found == kind:
        return None
    if found is not None:
        return f"it contains the results of {found!r}"
    names = [e.name for e in os.scandir(place) if e.name != LOCK] if place.is_dir() else []
    # the folds of a stage are artefacts of the same kind
    first = next((name for name in names if _kind_of(place / name) != kind), None)
    return (
        None if first is None else f"it is not empty (it contains {first!r}) and has no manifest of {kind!r}"
    )


def _kind_of(place: Path) -> str | None:
    """First word of the stage whose artefact, complete or not, is in a folder."""
    for file in (MANIFEST, UNFINISHED):
        try:
            record = json.loads((place / file).read_text(encoding="utf-8"))
            return str(record["stage"]).split()[0]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise IntegrityError(
                f"{place / file}: damaged, so it is unknown which files of this folder may be replaced. "
                f"Move or delete {place} and run the command again"
            ) from error
    return None


class OwnFiles:
    """The files of one artefact that this package wrote, or is about to write.

    Names are paths relative to the folder. Each is added to the journal before the file is written, so that
    it is known after a killed run which files may be deleted.

    Args:
        folder: The artefact's folder.
        named: Names in the manifest of the previous artefact.

    Raises:
        IntegrityError: A name points outside the folder.
    """

    def __init__(self, folder: Path, named: Iterable[str] = ()) -> None:
        self.folder = folder
        self.names: set[str] = set(named)
        self.reread()

    def reread(self) -> None:
        """Add names that other processes wrote to the journal."""
        self.names.update(_read_journal(self.folder / JOURNAL))
        for name in self.names:
            _must_stay_inside(self.folder, name)

    def claim(self, *names: str) -> None:
        """Register names of files that will be written.

        Raises:
            UsageError: A file of that name exists and was not written by this package.
        """
        new = [name for name in names if name not in self.names]
        for name in new:
            _must_stay_inside(self.folder, name)
            if os.path.lexists(self.folder / name):
                raise UsageError(
                    f"{self.folder / name}: exists, and rsna_seq did not write it; move it, or choose "
                    "another --out"
                )
        self.names.update(new)
        if new:
            journal_names(self.folder, new)

    def remember(self) -> None:
        """Write all names to the journal, so that they are known after the manifest is deleted."""
        write_text(self.folder / JOURNAL, "".join(json.dumps(name) + "\n" for name in sorted(self.names)))

    def forget_absent(self) -> None:
        """Drop names of files that do not exist: another program may later use such a name."""
        self.names = set(self.present())
        self.remember()

    @contextmanager
    def building(self) -> Iterator[None]:
        """Claim all files that this process writes with ``atomic_path`` within this block."""
        token = _CURRENT.set(self)
        try:
            with recording(self._record):
                yield
        finally:
            _CURRENT.reset(token)

    def _record(self, path: Path) -> None:
        """Claim a path if it is in the folder and not one of the artefact's records."""
        if path.is_relative_to(self.folder) and path.name not in {MANIFEST, UNFINISHED, JOURNAL}:
            self.claim(path.relative_to(self.folder).as_posix())

    def present(self) -> list[str]:
        """Names of own files that exist as regular files, sorted."""
        return sorted(name for name in self.names if self._is_own(name))

    def discard(self, keep: Iterable[str] = ()) -> None:
        """Delete own files except some, and folders that become empty; links are not touched."""
        unwanted = self.names - set(keep)
        for name in unwanted:
            if self._is_own(name):
                (self.folder / name).unlink()
        self.discard_parts()
        folders = {p for name in unwanted for p in PurePosixPath(name).parents if p.name}
        for folder in sorted(folders, key=lambda p: len(p.parts), reverse=True):
            place = self.folder / folder
            if place.is_dir() and not place.is_symlink() and not any(place.iterdir()):
                place.rmdir()

    def discard_parts(self) -> None:
        """Delete temporary files that a killed run left beside own files."""
        by_folder: dict[Path, set[str]] = {}
        for name in self.names:
            path = self.folder / name
            by_folder.setdefault(path.parent, set()).add(path.name)
        for folder, names in by_folder.items():
            if not _through_link(self.folder, folder):
                remove_parts(folder, names)

    def _is_own(self, name: str) -> bool:
        path = self.folder / name
        return path.is_file() and not path.is_symlink() and not _through_link(self.folder, path.parent)


_CURRENT: ContextVar[OwnFiles | None] = ContextVar("own_files", default=None)


def own_files() -> OwnFiles:
    """The files of the artefact that is being built; for builds whose files other processes write."""
    found = _CURRENT.get()
    assert found is not None, "no artefact is being built"
    return found


def journal_names(folder: Path, names: Iterable[str]) -> None:
    """Record names of an artefact's files before they are written, from any process of the build.

    Args:
        folder: The artefact's folder.
        names: Paths relative to it.
    """
    lines = "".join(json.dumps(name) + "\n" for name in names)
    with (folder / JOURNAL).open("ab", buffering=0) as journal:
        journal.write(lines.encode())  # one call, so that lines of several processes do not mix


def _through_link(top: Path, folder: Path) -> bool:
    """Whether a folder below ``top`` is reached through a link."""
    return any(p.is_symlink() for p in (folder, *folder.parents) if p.is_relative_to(top) and p != top)


def _must_stay_inside(folder: Path, name: str) -> None:
    """Refuse a name that points outside the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise IntegrityError(f"{folder}: its manifest lists {name!r}, which is outside the folder")


def _read_journal(journal: Path) -> list[str]:
    """Read the names in a journal; an incomplete last line names a file that was never written."""
    try:
        lines = journal.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    names = []
    for line in lines:
        try:
            name = json.loads(line)
        except ValueError:
            continue
        names += [name] if isinstance(name, str) else []
    return names
