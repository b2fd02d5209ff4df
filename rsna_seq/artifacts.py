"""What a stage leaves behind: files written whole or not at all, and a manifest that is written last.

1. :func:`ensure` compares the stage's :class:`Key` with the manifest in its folder.
2. Equal: the artefact is reused. Else the folder is built, under a lock, and the reason printed.
3. The manifest is written last; its presence means complete. An unfinished folder whose key still matches
   is handed to the build as it is, so that a learned stage can resume.
"""

import fcntl
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rsna_seq.console import say
from rsna_seq.errors import IntegrityError
from rsna_seq.provenance import commit, digest_file, package_version

Section = TypeVar("Section", bound=BaseModel)

MANIFEST = "manifest.json"
_UNFINISHED = "unfinished.json"
_LOCK = ".lock"


@dataclass(frozen=True)
class Key:
    """What an artefact depends on: two equal keys make equal artefacts."""

    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    """Content digests of the inputs, by name."""
    source: str
    """Digest of the code (:func:`rsna_seq.provenance.source_digest`)."""

    def parts(self) -> dict[str, Any]:
        """The key as plain data, as it stands in the manifest."""
        return {
            "stage": self.stage,
            "config": _plain(self.config),
            "inputs": _plain(self.inputs),
            "source": self.source,
        }

    def difference(self, other: Mapping[str, Any]) -> str:
        """Name what differs from the key parts of a manifest; empty where nothing does."""
        words = []
        mine = self.parts()
        for part in ("config", "inputs"):
            theirs = other.get(part, {})
            keys = sorted(k for k in {*mine[part], *theirs} if mine[part].get(k) != theirs.get(k))
            words += [f"{part} {', '.join(keys)}"] if keys else []
        words += ["the code"] if mine["source"] != other.get("source") else []
        return " and ".join(words)


@dataclass(frozen=True)
class Receipt:
    """What a build tells of itself, for the manifest and the closing line."""

    counts: Mapping[str, int]
    set_aside: Mapping[str, int]
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
    version: str
    commit: str | None
    device: str
    counts: dict[str, int]
    set_aside: dict[str, int]
    files: dict[str, str]
    """BLAKE3 of each file, by path relative to the folder."""
    wall_s: float

    def section(self, kind: type[Section]) -> Section:
        """The config of the stage that made this, as its class."""
        return kind.model_validate({k: v for k, v in self.config.items() if k in kind.model_fields})

    @property
    def content(self) -> str:
        """Digest of all files: what a later stage names as its input."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()


@contextmanager
def atomic_path(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place when the block ends well.

    Args:
        path: The file that is to be complete or absent.
        sync: Wait until it is on the disk, so that it outlives a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)  # as the umask says
        yield temporary
        temporary.chmod(mode)  # some libraries replace the file by a private one of their own
        if sync:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write plain data as JSON, complete or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other runs; the lock dies with the process.

    Raises:
        IntegrityError: Another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise IntegrityError(
                f"{folder}: another run is writing here; wait for it, or choose another --out"
            ) from error
        yield


def read_manifest(folder: Path, *, verify: bool | tuple[str, ...] = False) -> Manifest:
    """Open the manifest of a finished artefact.

    Args:
        folder: The stage's folder.
        verify: Read every file and compare its digest; or only those whose names end so.

    Raises:
        IntegrityError: There is none, it is damaged, or (with ``verify``) a file differs.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise IntegrityError(f"{folder}: nothing finished here; run its stage first")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise IntegrityError(f"{path}: not a manifest of this version; rebuild its stage") from error
    missing = [name for name in manifest.files if not (folder / name).is_file()]
    if missing:
        raise IntegrityError(f"{folder}: {', '.join(missing[:3])} missing; rebuild its stage")
    if verify:
        ends = verify if isinstance(verify, tuple) else ("",)
        known = {name: digest for name, digest in manifest.files.items() if name.endswith(ends)}
        damaged = [name for name, digest in known.items() if digest_file(folder / name) != digest]
        if damaged:
            raise IntegrityError(f"{folder}: {', '.join(damaged[:3])} damaged; rebuild its stage")
    return manifest


def ensure(
    out: Path,
    key: Key,
    build: Callable[[Path], Receipt],
    *,
    learned: bool = False,
    rebuild: bool = False,
    piecewise: bool = False,
    verify: bool = False,
) -> Manifest:
    """Reuse the artefact in ``out`` where its key matches, else build it.

    Args:
        out: The stage's folder.
        key: What the artefact depends on.
        build: Writes the files into the folder it is given.
        learned: It may hold days of work: never thrown away without ``rebuild``.
        rebuild: Build anew whatever is there.
        piecewise: ``build`` is handed whatever lies there, keeps the pieces that still hold, and removes
            the rest.
        verify: Read every file before it is reused; one that is damaged is reason to build.

    Raises:
        IntegrityError: A learned artefact is stale, or another run is writing here.
    """
    with locked(out):
        stale = _staleness(out, key, verify=verify)
        if stale == "" and not rebuild:
            say(key.stage, "up to date")
            return read_manifest(out)
        resumable = _unfinished_key(out) == key.parts() and not rebuild
        if not resumable:
            _clear(out, key, stale, keep=learned and not rebuild, only_seal=piecewise and not rebuild)
            write_json(out / _UNFINISHED, key.parts())
        start = time.monotonic()
        receipt = build(out)
        return _seal(out, key, receipt, time.monotonic() - start)


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping as JSON would give it back, so that keys compare equal after a round trip."""
    plain: dict[str, Any] = json.loads(json.dumps(value, default=str))
    return plain


def _unfinished_key(out: Path) -> object:
    try:
        return json.loads((out / _UNFINISHED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _staleness(out: Path, key: Key, *, verify: bool) -> str | None:
    """Why the artefact in ``out`` cannot be reused: empty where it can, None where there is none."""
    try:
        manifest = read_manifest(out)
        changed = key.difference(manifest.model_dump())
        if verify and not changed:
            read_manifest(out, verify=True)
    except IntegrityError as error:
        return None if not (out / MANIFEST).exists() else str(error)
    return changed


def _is_artefact(path: Path) -> bool:
    """Whether a folder is an artefact of its own, which guards itself."""
    return (path / MANIFEST).exists() or (path / _UNFINISHED).exists()


def _clear(out: Path, key: Key, stale: str | None, *, keep: bool, only_seal: bool) -> None:
    """Empty a folder for a new build, and say why; refuse where that would throw learned work away.

    With ``only_seal`` nothing but the manifest goes, which made the artefact complete.
    """
    unfinished = stale is None and _unfinished_key(out) is not None
    if unfinished:
        was = _unfinished_key(out)
        stale = key.difference(was if isinstance(was, dict) else {})
    if stale is not None:
        if keep:
            raise IntegrityError(
                f"{out}: {stale} changed since this was trained; "
                "--rebuild trains anew, or choose another --out"
            )
        why = stale if "; " in stale else f"{stale} changed"
        say(key.stage, f"rebuilding: {why}" if stale else "rebuilding")
    for path in [out / MANIFEST] if only_seal else list(out.iterdir()):
        if path.exists() and path.name != _LOCK and not _is_artefact(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _seal(out: Path, key: Key, receipt: Receipt, wall_s: float) -> Manifest:
    """Write the manifest, which makes the artefact complete, and say what was made."""
    transient = {MANIFEST, _UNFINISHED, _LOCK}
    files = sorted(
        p for p in out.rglob("*") if p.is_file() and not p.name.startswith(".") and p.name not in transient
    )
    manifest = Manifest(
        **key.parts(),
        version=package_version(),
        commit=commit(),
        device=receipt.device,
        counts=dict(receipt.counts),
        set_aside=dict(receipt.set_aside),
        files={
            name: receipt.digests.get(name) or digest_file(out / name)
            for name in (p.relative_to(out).as_posix() for p in files)
        },
        wall_s=round(wall_s, 3),
    )
    write_json(out / MANIFEST, manifest.model_dump())
    (out / _UNFINISHED).unlink(missing_ok=True)
    made = ", ".join(f"{n:,} {what}" for what, n in receipt.counts.items())
    aside = sum(receipt.set_aside.values())
    say(key.stage, f"{made}; {aside:,} set aside; {wall_s:.1f} s" if aside else f"{made}; {wall_s:.1f} s")
    return manifest
