"""Artefacts: the output of a stage on disk, described by a manifest.

Every file is compared with its digest before it is used, and so is the manifest.
:mod:`rsna_seq.store.builds` builds and reuses them.
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
    """What an artefact depends on: equal keys give equal artefacts."""

    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    """Content digests of the inputs, by name."""
    source: str
    """Digest of the code (:func:`rsna_seq.store.provenance.source_digest`)."""

    def parts(self) -> dict[str, Any]:
        """The key as plain data, as it is written in the manifest."""
        return {
            "stage": self.stage,
            "config": _plain(self.config),
            "inputs": _plain(self.inputs),
            "source": self.source,
        }

    def change(self, other: Mapping[str, Any]) -> "Change | None":
        """Return what differs from the key parts of a manifest; None if nothing does."""
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
        damage: A sentence that names a missing or damaged file.
    """

    config: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    code: bool = False
    damage: str | None = None

    def __str__(self) -> str:
        parts = [f"config {', '.join(self.config)}"] if self.config else []
        parts += [f"input {', '.join(self.inputs)}"] if self.inputs else []
        parts += ["the code"] if self.code else []
        return self.damage or " and ".join(parts) + " changed"


@dataclass(frozen=True)
class BuildSummary:
    """Summary of a build, for the manifest and the final line."""

    counts: Mapping[str, int]
    excluded: Mapping[str, int]
    """Number of inputs that were not used, by reason."""
    device: str = "cpu"
    digests: Mapping[str, str] = field(default_factory=dict)
    """BLAKE3 of files, if the build has already computed it."""


class Manifest(BaseModel):
    """``manifest.json``: the contents of an artefact, its inputs, and how it was built."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]
    source: str
    earlier_sources: list[str] = []
    """Digests of earlier code that built the artefact or reproduced its outputs."""
    version: str
    commit: str | None
    device: str
    counts: dict[str, int]
    excluded: dict[str, int]
    files: dict[str, str]
    """BLAKE3 of each file, by path relative to the folder."""
    wall_s: float
    digest: str = ""
    """BLAKE3 of the other fields of the manifest."""

    def section(self, kind: type[Section]) -> Section:
        """The config of the stage that built this artefact, as an instance of its class."""
        return kind.model_validate({k: v for k, v in self.config.items() if k in kind.model_fields})

    @property
    def summary(self) -> dict[str, Any]:
        """What a command's ``--json`` says of this artefact."""
        fields = {"counts", "excluded", "version", "commit", "device", "wall_s"}
        return {**self.model_dump(mode="json", include=fields), "content": self.content}

    @property
    def content(self) -> str:
        """Digest of all files, by which a later stage identifies its input."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()

    def sealed(self) -> "Manifest":
        """Return the manifest with its digest filled in."""
        return self.model_copy(update={"digest": self._digest()})

    @property
    def is_sound(self) -> bool:
        """Whether the digest matches the other fields."""
        return self.digest == self._digest()

    def _digest(self) -> str:
        plain = self.model_dump(mode="json", exclude={"digest"})
        return blake3(json.dumps(plain, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A complete artefact, open for reading.

    Attributes:
        folder: Folder of the artefact.
        manifest: Its manifest.
    """

    folder: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Return the path of a file after comparing its content with the manifest.

        Raises:
            IntegrityError: The file is not listed in the manifest, is missing, or is damaged.
        """
        self.check([name])
        return self.folder / name

    def check(self, names: Iterable[str] | None = None) -> None:
        """Compare files with their digests; all files if no names are given.

        Raises:
            IntegrityError: A file is missing or damaged; the message names the first.
        """
        for name in self.manifest.files if names is None else names:
            known, path = self.manifest.files.get(name), self.folder / name
            if known is None or not path.is_file():
                raise IntegrityError(f"{path}: missing; {_REMEDY}")
            if digest_file(path) != known:
                raise IntegrityError(f"{path}: damaged, its digest differs from the manifest; {_REMEDY}")


_REMEDY = "run its stage again (a trained stage with --rebuild), or restore it"


def open_artifact(folder: Path) -> Artifact:
    """Open a complete artefact.

    Raises:
        IntegrityError: The artefact is not complete, a file is missing, or the manifest is damaged.
    """
    return Artifact(folder, read_manifest(folder))


def read_manifest(folder: Path, *, verify: bool = False) -> Manifest:
    """Read the manifest of a complete artefact.

    Args:
        folder: The stage's folder.
        verify: Read every file and compare its digest.

    Raises:
        IntegrityError: The manifest is missing or damaged, or a file is missing or (with ``verify``) damaged.
    """
    manifest = load_manifest(folder)
    missing = [name for name in manifest.files if not (folder / name).is_file()]
    if missing:
        raise IntegrityError(f"{folder / missing[0]}: missing; {_REMEDY}")
    if verify:
        Artifact(folder, manifest).check()
    return manifest


def load_manifest(folder: Path) -> Manifest:
    """Read a manifest without checking its files.

    Raises:
        IntegrityError: The manifest is missing or damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise IntegrityError(f"{folder}: no complete artefact here; run its stage first")
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
    """Convert the mapping as a JSON round trip would, so that stored keys compare equal."""
    plain: dict[str, Any] = json.loads(json.dumps(value, default=str))
    return plain
