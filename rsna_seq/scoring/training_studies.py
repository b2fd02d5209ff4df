"""The training studies of a run, measured: what :mod:`rsna_seq.scoring.novelty` compares unseen studies with.

1. :func:`study_numbers`: mode and noise of brain tissue, spacing and largest gap of the slabs.
2. :func:`write_training`: these numbers of the training studies and, in the space of the network that was not
   trained on it, each study's vector and its distance to the other studies.
3. :func:`training_fault`: whether the code still measures the stored numbers.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.imaging.brain_mode import brain_mode
from rsna_seq.imaging.noise import brain_noise
from rsna_seq.imaging.volume import Volume
from rsna_seq.scoring.novelty import TABLE, VECTORS, Space
from rsna_seq.store.array_file import array_writer
from rsna_seq.store.artifacts import Artifact
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.tables import LOGITS, TRAINING, from_rows, read_table, write_table

_MOST = 1000
"""Largest number of training studies per network that are stored, evenly spread over the sorted names."""
_CHECKED = 3
"""Stored studies that are measured again if the code has changed."""
_SAME = 0.05
"""Largest difference, in HU or mm, at which a number counts as the same."""


def study_numbers(volume: Volume, hu_shift: int) -> dict[str, float | None]:
    """Measure a study, or one of its passes.

    Args:
        volume: The study as ``cache`` stores it.
        hu_shift: HU that ``cache`` added to it.

    Returns:
        ``brain_hu`` (mode of brain tissue before the shift), ``noise_hu``, ``spacing_mm`` (median) and
        ``largest_gap_mm``; None where a number cannot be measured.
    """
    mode, gaps = brain_mode(volume.hu), np.diff(volume.z_mm)
    return {
        "brain_hu": None if mode is None else mode - hu_shift,
        "noise_hu": None if mode is None else brain_noise(volume.hu, mode),
        "spacing_mm": float(np.median(gaps)) if len(gaps) else None,
        "largest_gap_mm": float(gaps.max()) if len(gaps) else None,
    }


def write_training(pixels: PixelCache, folds: Mapping[int, Artifact], out: Path) -> int:
    """Measure the training studies and write their numbers and vectors.

    Args:
        pixels: Cache of the run.
        folds: Folds of ``embed``, by number; fold k holds the vectors of the studies that network k left out.
        out: Receives ``training.parquet`` and ``training_vectors.npy``.

    Returns:
        Number of studies.
    """
    studies = pixels.slabs.group_by("study").agg(pl.col("fold", "hu_shift").first())
    about = {study: (fold, shift or 0) for study, fold, shift in studies.rows()}
    rows: list[dict[str, object]] = []
    parts = []
    for net, fold in sorted(folds.items()):
        names, vectors = _study_vectors(fold, {study for study, (own, _) in about.items() if own == net})
        distance = Space.of(vectors).among_themselves()
        for name, away in zip(names, distance, strict=True):
            numbers = study_numbers(pixels.read(name), about[name][1])
            rows.append({"study": name, "net": net, **numbers, "embedding_distance": away})
        parts.append(vectors)
    write_table(from_rows(rows, TRAINING), out / TABLE, TRAINING)
    together = np.concatenate(parts)
    with array_writer(out / VECTORS, np.float32, together.shape[1:], rows=len(together)) as writer:
        writer.append(together)
    return len(rows)


def _study_vectors(fold: Artifact, wanted: set[str]) -> tuple[list[str], NDArray[np.float32]]:
    """Names and (study, feature) mean vectors of the studies of a fold, at most ``_MOST``."""
    vectors = np.load(fold.file("vectors.npy"), mmap_mode="r")
    table = read_table(fold.file("logits.parquet"), LOGITS).with_row_index("at")
    spans = table.group_by("study").agg(pl.col("at").min(), pl.len()).sort("study")
    spans = spans.filter(pl.col("study").is_in(wanted))
    spans = spans[np.unique(np.linspace(0, len(spans) - 1, min(_MOST, len(spans))).round().astype(int))]
    means = [vectors[at : at + n].mean(axis=0, dtype=np.float64) for _, at, n in spans.rows()]
    return spans["study"].to_list(), np.array(means, dtype=np.float32).reshape(len(spans), vectors.shape[1])


def training_fault(pixels: PixelCache, stack: Artifact) -> str | None:
    """Measure a few training studies again.

    Args:
        pixels: Cache of the run.
        stack: Artefact of ``stack``.

    Returns:
        A sentence if a number differs from the stored one, or if none is stored; otherwise None.
    """
    if TABLE not in stack.manifest.files:
        return "the training studies are not recorded"
    shifts = dict(pixels.slabs.group_by("study").agg(pl.col("hu_shift").first()).rows())
    for row in read_table(stack.file(TABLE), TRAINING).head(_CHECKED).iter_rows(named=True):
        for name, value in study_numbers(pixels.read(row["study"]), shifts[row["study"]] or 0).items():
            if (value is None) != (row[name] is None) or abs((value or 0) - (row[name] or 0)) > _SAME:
                return f"{name} of a training study is {value}, and the stored value {row[name]}"
    return None
