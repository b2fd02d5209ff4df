"""The inputs of a prediction, as its manifest records them."""

from collections.abc import Sequence
from pathlib import Path

from rsna_seq.errors import UsageError
from rsna_seq.imaging.folders import escaped
from rsna_seq.store.artifacts import load_manifest
from rsna_seq.store.outputs import MANIFEST, is_run

_NAMED = 3
"""Largest number of inputs that a message names."""


def inputs_of(folders: Sequence[Path]) -> list[str]:
    """The inputs as they are recorded: resolved paths, sorted, each once."""
    return sorted({escaped(str(folder.resolve())) for folder in folders})


def must_be_of_input(out: Path, folders: Sequence[Path]) -> None:
    """Refuse an output folder that contains the result of other inputs, which would be lost.

    The subfolders of a run belong to the run and are replaced with it.

    Args:
        out: The output folder; it need not exist.
        folders: The inputs.

    Raises:
        UsageError: A result of other inputs is there.
        IntegrityError: The manifest in the folder is damaged.
    """
    if not (out / MANIFEST).is_file() or is_run(out.absolute().parent):
        return
    config = load_manifest(out).config
    known = config.get("inputs")
    if known is None:  # written by a version that recorded no more than the root
        return
    if known != inputs_of(folders):
        more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        named = ", ".join(known[:_NAMED]) + more
        raise UsageError(
            f"--out {out}: contains the result of another input ({named}); choose another --out, or replace "
            "that result with --rebuild"
        )
