"""Build artefacts: reuse them if nothing changed, otherwise build them under a lock, manifest last.

1. :func:`ensure` refuses an unsafe folder and compares the stage's key with the manifest in it.
2. If both match and all files are intact, the artefact is reused. Otherwise it is built again.
3. The manifest is written last; its presence means complete. An incomplete folder whose key still matches
   is passed to the build as it is, so that a learned stage can resume.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rsna_seq.console import say
from rsna_seq.errors import IntegrityError
from rsna_seq.store.artifacts import Artifact, BuildSummary, Change, Key, Manifest, load_manifest
from rsna_seq.store.files import LOCK, locked, write_json
from rsna_seq.store.outputs import JOURNAL, MANIFEST, UNFINISHED, OwnFiles, must_be_safe
from rsna_seq.store.provenance import commit, digest_file, package_version


def ensure(
    out: Path,
    key: Key,
    build: Callable[[Path], BuildSummary],
    *,
    learned: bool = False,
    rebuild: bool = False,
    piecewise: bool = False,
    sources: Sequence[Path] = (),
    check: Callable[[Path], str | None] | None = None,
) -> Manifest:
    """Reuse the artefact in ``out`` if its key matches and its files are intact, otherwise build it.

    Args:
        out: The stage's folder.
        key: What the artefact depends on.
        build: Writes the files into the given folder, with ``atomic_path`` or after claiming their names.
        learned: The artefact contains trained weights: it is never deleted without ``rebuild``.
        rebuild: Build again, also if the artefact is up to date.
        piecewise: The existing files are passed to ``build``, which keeps the valid parts and removes the
            rest.
        check: Called if only the code changed since a learned artefact was built: applies the stored weights
            to stored inputs and returns how the outputs differ from the stored ones. If it returns None, the
            artefact is valid for the new code.
        sources: Input folders and files; ``out`` must not contain them or be inside them.

    Raises:
        UsageError: ``out`` may contain other files (:func:`rsna_seq.store.outputs.must_be_safe`).
        IntegrityError: A learned artefact is stale, the manifest is damaged, or another run uses ``out``.
    """
    must_be_safe(out, key.stage.split()[0], sources)
    with locked(out):
        found, change = _state(out, key)
        own = OwnFiles(out, found.files if found else ())
        if found is not None and change is None and not rebuild:
            _close(out, own)
            say(key.stage, "up to date")
            return found
        if found is not None and change == Change(code=True) and learned and check and not rebuild:
            return _checked(out, own, key, found, check)
        if not (change is None and not rebuild and (out / UNFINISHED).exists()):
            _prepare(out, own, key, change, learned=learned and not rebuild, keep=piecewise and not rebuild)
        start = time.monotonic()
        summary = _run(build, own)
        return _seal(own, key, summary, time.monotonic() - start)


def discard(out: Path, kind: str) -> None:
    """Delete an artefact that is no longer needed, complete or not; other files in its folder stay.

    Args:
        out: The artefact's folder; it need not exist.
        kind: First word of the stage that built it.

    Raises:
        UsageError: The folder may contain other files.
        IntegrityError: The manifest is damaged, or another run uses the folder.
    """
    if not out.is_dir():
        return
    must_be_safe(out, kind)
    with locked(out):
        OwnFiles(out, load_manifest(out).files if (out / MANIFEST).exists() else ()).discard()
        for record in (MANIFEST, UNFINISHED, JOURNAL, LOCK):
            (out / record).unlink(missing_ok=True)
        if not any(out.iterdir()):
            out.rmdir()


_TOLERANCE = 1e-2
"""Maximum difference of logits of the same weights between machines or library versions."""


def reproduction_fault(difference: float) -> str | None:
    """Describe that stored weights do not reproduce the stored logits; None if they do.

    Args:
        difference: Largest absolute difference of stored and recomputed logits.
    """
    if difference <= _TOLERANCE:
        return None
    return f"the stored weights give logits that differ by up to {difference:.3g} from the stored ones"


def _checked(
    out: Path, own: OwnFiles, key: Key, found: Manifest, check: Callable[[Path], str | None]
) -> Manifest:
    """Keep a learned artefact whose code changed if its stored outputs are reproduced."""
    Artifact(out, found).check()
    fault = check(out)
    if fault is not None:
        raise IntegrityError(
            f"{out}: the code changed since this was trained, and {fault}; use --rebuild to "
            "train again, or choose another --out"
        )
    same = found.model_copy(
        update={"source": key.source, "earlier_sources": [*found.earlier_sources, found.source]}
    )
    write_json(out / MANIFEST, same.sealed().model_dump())
    _close(out, own)
    say(key.stage, "up to date: the code changed, and the stored weights still give the stored logits")
    return same.sealed()


def _run(build: Callable[[Path], BuildSummary], own: OwnFiles) -> BuildSummary:
    """Run a build; if it fails, the journal lists exactly the files that were written."""
    try:
        with own.building():
            return build(own.folder)
    except BaseException:
        own.reread()
        own.forget_absent()
        raise
    finally:
        own.reread()


def _state(out: Path, key: Key) -> tuple[Manifest | None, Change | None]:
    """Return the manifest of a complete artefact, or None, and what differs from the key."""
    if (out / MANIFEST).exists():
        manifest = load_manifest(out)
        return manifest, key.change(manifest.model_dump()) or _damage(Artifact(out, manifest))
    try:
        return None, key.change(json.loads((out / UNFINISHED).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None, None


def _damage(artifact: Artifact) -> Change | None:
    """Return what is missing or damaged in an artefact."""
    try:
        artifact.check()
    except IntegrityError as error:
        return Change(damage=str(error).split("; ")[0])
    return None


def _prepare(out: Path, own: OwnFiles, key: Key, change: Change | None, *, learned: bool, keep: bool) -> None:
    """Prepare a folder for a new build, and print why; refuse if this would delete trained weights.

    With ``keep`` only the manifest is deleted, so that the artefact is no longer complete.
    """
    if change is not None:
        if learned:
            reason = change.damage or f"{out}: {change} since this was trained"
            raise IntegrityError(f"{reason}; use --rebuild to train again, or choose another --out")
        say(key.stage, f"rebuilding: {change}")
    elif (out / MANIFEST).exists():
        say(key.stage, "rebuilding")
    own.remember()
    write_json(out / UNFINISHED, key.parts())
    (out / MANIFEST).unlink(missing_ok=True)
    if not keep:
        own.discard()
        own.forget_absent()


def _close(out: Path, own: OwnFiles) -> None:
    """Remove the records of a finished build."""
    own.discard_parts()
    (out / UNFINISHED).unlink(missing_ok=True)
    (out / JOURNAL).unlink(missing_ok=True)


def _seal(own: OwnFiles, key: Key, summary: BuildSummary, wall_s: float) -> Manifest:
    """Write the manifest, which makes the artefact complete, and print a summary."""
    out = own.folder
    manifest = Manifest(
        **key.parts(),
        version=package_version(),
        commit=commit(),
        device=summary.device,
        counts=dict(summary.counts),
        excluded=dict(summary.excluded),
        files={name: summary.digests.get(name) or digest_file(out / name) for name in own.present()},
        wall_s=round(wall_s, 3),
    ).sealed()
    write_json(out / MANIFEST, manifest.model_dump())
    _close(out, own)
    made = ", ".join(f"{n:,} {what}" for what, n in summary.counts.items())
    excluded = sum(summary.excluded.values())
    not_used = f"{excluded:,} excluded; " if excluded else ""
    say(key.stage, f"{made}; {not_used}{wall_s:.1f} s")
    return manifest
