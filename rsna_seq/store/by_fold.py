"""A learned stage whose folds are artefacts of their own, so that jobs can share them.

1. Each wanted fold is built in ``fold{k}/`` with weights and ``logits.parquet``.
2. When all folds are there, trained under the same config and on the same inputs, their logits become one
   table in the stage's folder, which completes the stage.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from rsna_seq.console import say
from rsna_seq.errors import IntegrityError, UsageError
from rsna_seq.store.artifacts import BuildSummary, Key, Manifest, open_artifact, read_manifest
from rsna_seq.store.builds import ensure
from rsna_seq.store.outputs import MANIFEST
from rsna_seq.store.tables import LOGITS, read_table, write_table


def ensure_by_fold(
    out: Path,
    key: Key,
    folds: Sequence[int],
    build: Callable[[int, Path], BuildSummary],
    check: Callable[[Path], str | None],
    *,
    wanted: Sequence[int] | None = None,
    rebuild: bool = False,
) -> Manifest | None:
    """Build the wanted folds, and the stage once no fold is missing.

    Args:
        out: The stage's folder.
        key: What the stage depends on; the keys of the folds are made from it.
        folds: All folds of the stage.
        build: Trains a fold and writes its files into the given folder.
        check: As in :func:`rsna_seq.store.builds.ensure`, for the folder of one fold.
        wanted: Folds to build now; None builds all.
        rebuild: Build the wanted folds again, also if they are up to date.

    Returns:
        The stage's manifest, or None while folds of other jobs are missing.

    Raises:
        UsageError: A wanted fold does not exist.
        IntegrityError: A fold was trained under another config or on other inputs.
    """
    keys = {f: Key(f"{key.stage} {f}", {**key.config, "fold": f}, key.inputs, key.source) for f in folds}
    for fold in _wanted(key.stage, wanted, folds):
        train = functools.partial(build, fold)
        ensure(out / f"fold{fold}", keys[fold], train, learned=True, rebuild=rebuild, check=check)
    done = {f: read_manifest(out / f"fold{f}") for f in folds if (out / f"fold{f}" / MANIFEST).is_file()}
    _must_be_alike(key.stage, keys, done, out)
    if len(done) < len(folds):
        say(key.stage, f"{len(done)} of {len(folds)} folds are trained; the last one completes the stage")
        return None
    contents = {f"fold{fold}": manifest.content for fold, manifest in done.items()}
    whole = Key(key.stage, key.config, {**key.inputs, **contents}, key.source)
    return ensure(out, whole, lambda folder: _gather(folds, folder))


def _wanted(stage: str, wanted: Sequence[int] | None, folds: Sequence[int]) -> list[int]:
    """The folds to train now."""
    if wanted is None:
        return list(folds)
    unknown = sorted(set(wanted) - set(folds))
    if unknown:
        raise UsageError(f"{stage}.folds: there is no fold {unknown}; this index has {list(folds)}")
    return sorted(wanted)


def _must_be_alike(stage: str, keys: dict[int, Key], done: dict[int, Manifest], out: Path) -> None:
    """Refuse to join folds that were trained under different configs or on different inputs.

    Raises:
        IntegrityError: Names the fold and what differs.
    """
    for fold, manifest in done.items():
        change = keys[fold].change(manifest.model_dump() | {"source": keys[fold].source})
        if change is not None:
            raise IntegrityError(
                f"{out / f'fold{fold}'}: {change} since this fold was trained, so it cannot be joined with "
                f"the others; train it again with --rebuild {stage}.folds=[{fold}], or use the run's config"
            )


def _gather(folds: Sequence[int], out: Path) -> BuildSummary:
    """Put the logits of all folds into one table."""
    parts = [open_artifact(out / f"fold{fold}") for fold in folds]
    tables = [read_table(part.file("logits.parquet"), LOGITS) for part in parts]
    write_table(pl.concat(tables).sort("study", "slab", "net"), out / "logits.parquet", LOGITS)
    devices = {part.manifest.device for part in parts}
    return BuildSummary(
        {"networks": len(folds), "rows of logits": sum(map(len, tables))}, {}, ", ".join(sorted(devices))
    )
