"""Artefacts: what a stage leaves on disk, described by a manifest.

Every file is compared with its digest before it is used, and the manifest with a digest of its own.
:mod:`rsna_seq.store.builds` makes and reuses them.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, ValidationError

from rsna_seq.errors import IntegrityError
from rsna_seq.store.outputs import MANIFEST
from rsna_seq.store.provenance import digest_file

Section = TypeVar("Section", bound=BaseModel)


@dataclass(frozen=True)
class Key:
    """What an artefact depends on: two equal keys make equal artefacts."""

    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    """Content digests of the inputs, by name."""
    source: str
    """Digest of the code (:func:`rsna_seq.store.provenance.source_digest`)."""

    def parts(self) -> dict[str, Any]:
        """The key as plain data, as it stands in the manifest."""
        return {
            "stage": self.stage,
            "config": _plain(self.config),
            "inputs": _plain(self.inputs),
            "source": self.source,
        }

    def change(self, other: Mapping[str, Any]) -> "Change | None":
        """What differs from the key parts of a manifest; None where nothing does."""
        mine = self.parts()

        def differing(part: str) -> tuple[str, ...]:
            theirs = other.get(part, {})
            return tuple(sorted(k for k in {*mine[part], *theirs} if mine[part].get(k) != theirs.get(k)))

        found = Change(differing("config"), differing("inputs"), code=mine["source"] != other.get("source"))
        return found if found != Change() else None


@dataclass(frozen=True)
class Change:
    """Why an artefact cannot be reused.

    Attributes:
        config: Keys of the config whose values differ.
        inputs: Inputs whose content differs.
        code: The code differs.
        damage: A file that is missing or damaged, as a sentence.
    """

    config: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    code: bool = False
    damage: str | None = None

    def __str__(self) -> str:
        words = [f"config {', '.join(self.config)}"] if self.config else []
        words += [f"input {', '.join(self.inputs)}"] if self.inputs else []
        words += ["the code"] if self.code else []
        return self.damage or " and ".join(words) + " changed"


@dataclass(frozen=True)
class BuildSummary:
    """What a build tells of itself, for the manifest and the closing line."""

    counts: Mapping[str, int]
    excluded: Mapping[str, int]
    """Inputs that were not used, by reason."""
    device: str = "cpu"
    digests: Mapping[str, str] = field(default_factory=dict)
    """BLAKE3 of files that the build knows already."""


class Manifest(BaseModel):
    """``manifest.json``: what an artefact is, of what it was made, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]
    source: str
    earlier_sources: list[str] = []
    """Digests of the code that made the artefact, or reproduced its outputs, before ``source``."""
    version: str
    commit: str | None
    device: str
    counts: dict[str, int]
    excluded: dict[str, int]
    files: dict[str, str]
    """BLAKE3 of each file, by path relative to the folder."""
    wall_s: float
    digest: str = ""
    """BLAKE3 of all the rest of the manifest."""

    def section(self, kind: type[Section]) -> Section:
        """The config of the stage that made this, as its class."""
        return kind.model_validate({k: v for k, v in self.config.items() if k in kind.model_fields})

    @property
    def content(self) -> str:
        """Digest of all files: what a later stage names as its input."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()

    def sealed(self) -> "Manifest":
        """The same manifest with its digest."""
        return self.model_copy(update={"digest": self._digest()})

    @property
    def is_sound(self) -> bool:
        """Whether the digest is that of the rest."""
        return self.digest == self._digest()

    def _digest(self) -> str:
        plain = self.model_dump(mode="json", exclude={"digest"})
        return blake3(json.dumps(plain, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A finished artefact, open for reading.

    Attributes:
        folder: Where it lies.
        manifest: Its manifest.
    """

    folder: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """The path of a file, once its content was compared with the manifest.

        Raises:
            IntegrityError: The manifest does not name it, or it is missing or damaged.
        """
        self.check([name])
        return self.folder / name

    def check(self, names: Iterable[str] | None = None) -> None:
        """Compare files with their digests; all files where none is named.

        Raises:
            IntegrityError: Names the first that is missing or damaged.
        """
        for name in self.manifest.files if names is None else names:
            known, path = self.manifest.files.get(name), self.folder / name
            if known is None or not path.is_file():
                raise IntegrityError(f"{path}: missing; {_REMEDY}")
            if digest_file(path) != known:
                raise IntegrityError(f"{path}: damaged, its digest is not the manifest's; {_REMEDY}")


_REMEDY = "run its stage again (a trained stage with --rebuild), or restore it"


def open_artifact(folder: Path) -> Artifact:
    """Open a finished artefact.

    Raises:
        IntegrityError: It is not finished, a file is missing, or the manifest is damaged.
    """
    return Artifact(folder, read_manifest(folder))


def read_manifest(folder: Path, *, verify: bool = False) -> Manifest:
    """Read the manifest of a finished artefact.

    Args:
        folder: The stage's folder.
        verify: Read every file and compare its digest.

    Raises:
        IntegrityError: There is none, it is damaged, or a file is missing or (with ``verify``) damaged.
    """
    manifest = load_manifest(folder)
    missing = [name for name in manifest.files if not (folder / name).is_file()]
    if missing:
        raise IntegrityError(f"{folder / missing[0]}: missing; {_REMEDY}")
    if verify:
        Artifact(folder, manifest).check()
    return manifest


def load_manifest(folder: Path) -> Manifest:
    """Read a manifest, whether its files are there or not.

    Raises:
        IntegrityError: There is none, or it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise IntegrityError(f"{folder}: no finished artefact here; run its stage first")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
        if manifest.is_sound:
            return manifest
    except (ValidationError, ValueError, RecursionError):
        pass
    raise IntegrityError(
        f"{path}: damaged, or written by another version of rsna_seq; move or delete {folder} and run its "
        "stage again"
    )


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping as JSON would return it, so that keys compare equal after a round trip."""
    plain: dict[str, Any] = json.loads(json.dumps(value, default=str))
    return plain
