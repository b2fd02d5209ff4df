"""``embed``: a timm CNN over neighbouring slices times windows, out of fold.

1. For each fold, :func:`fit` trains a network on the other folds; the held-out patients are in none.
2. :func:`apply` gives each slab of the fold left out, and of the held-out patients, a vector and six logits.
3. With ``refit``, a last network is trained on all folds, for ``predict`` and for held-out patients.
4. ``fold{k}/``: ``last.safetensors``, ``vectors.npy`` (row, feature) and ``logits.parquet`` in the same
   order; ``logits.parquet`` beside them holds all folds. A fold is an artefact of its own, so jobs can share.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from rsna_seq.arrays import sigmoid
from rsna_seq.config import EmbedConfig
from rsna_seq.console import progress
from rsna_seq.context import Context
from rsna_seq.errors import NothingUsableError
from rsna_seq.folds import held_out, in_folds, labelled_rows
from rsna_seq.imaging.neighbours import neighbour_indices
from rsna_seq.imaging.volume import Volume
from rsna_seq.labels import CLASSES
from rsna_seq.nets.cnn import Embedder, load_embedder
from rsna_seq.nets.data import SlabDataset, read_studies
from rsna_seq.nets.embed_jobs import EmbedTraining
from rsna_seq.nets.loop import device_of, resolve_device
from rsna_seq.nets.loop import fit as fit_net
from rsna_seq.nets.pretrained import start_digest
from rsna_seq.scoring.metric import log_loss
from rsna_seq.settings.models import STUDY_KEYS
from rsna_seq.store.array_file import array_writer
from rsna_seq.store.artifacts import BuildSummary, Key, Manifest, open_artifact, read_manifest
from rsna_seq.store.builds import reproduction_fault
from rsna_seq.store.by_fold import ensure_by_fold
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.provenance import source_digest
from rsna_seq.store.run_folder import RunFolder, open_folds
from rsna_seq.store.tables import LOGITS, logit_table, read_table, write_table

_CHECKED_STUDIES = 3
"""Stored studies on which weights are checked when the code has changed."""
_CHECK = "check.parquet"
"""Logits of those studies by a network that was trained on all patients: no study was left out."""
_CHUNK = 64
"""Slices a forward pass at inference: enough to fill a device, few enough for a long study."""


class Embedding(NamedTuple):
    """A study in one network's space."""

    vectors: NDArray[np.float32]
    """(slab, feature)."""
    logits: NDArray[np.float64]
    """(slab, 6)."""


def run(cfg: EmbedConfig, ctx: Context, run: RunFolder) -> Manifest | None:
    """Train the folds that are asked for, and embed the studies that each left out.

    Args:
        cfg: Network and training.
        ctx: Seed, device, workers, limit.
        run: Has ``2_cache``; receives ``3_embed``.

    Returns:
        The manifest, or None while folds of other jobs are missing.

    Raises:
        NothingUsableError: There are not two folds with labels.
        IntegrityError: The folder holds networks that were trained otherwise, and no rebuild was asked for.
    """
    inputs = {"cache": read_manifest(run["cache"]).content} | start_digest(cfg)
    pixels = PixelCache(run["cache"])
    pixels.check()
    slabs = _labelled(pixels.slabs, ctx.limit)
    folds = sorted(slabs.filter(in_folds())["fold"].unique())
    if len(folds) < 2:
        raise NothingUsableError(
            f"embed: labelled studies in {len(folds)} folds; out of fold needs at least two patients"
        )
    folds += [folds[-1] + 1] if cfg.refit else []  # a number that no patient has: all are trained on
    unused = {"folds"} if cfg.refit else {"folds", "refit"}  # networks of earlier versions stay valid
    unused |= STUDY_KEYS if pixels.study_labels is None else set()
    config = {**cfg.model_dump(mode="json", exclude=unused), **ctx.key}
    key = Key("embed", config, inputs, source_digest(__name__))
    build = functools.partial(_build, cfg, ctx, pixels, slabs)
    check = functools.partial(_reproduces, cfg, ctx, pixels)
    return ensure_by_fold(run["embed"], key, folds, build, check, wanted=cfg.folds, rebuild=ctx.rebuild)


def _reproduces(cfg: EmbedConfig, ctx: Context, cache: PixelCache, folder: Path) -> str | None:
    """Apply stored weights to a few stored studies; a sentence if the logits differ from the stored ones."""
    fold = open_artifact(folder)
    refitted = _CHECK in fold.manifest.files
    table = read_table(fold.file(_CHECK if refitted else "logits.parquet"), LOGITS)
    net = load_embedder(cfg, fold.file("last.safetensors")).on(resolve_device(ctx.device), compiled=True)
    worst = 0.0
    for study in table["study"].unique(maintain_order=True).head(_CHECKED_STUDIES):
        stored = table.filter(pl.col("study") == study).select(CLASSES).to_numpy()
        worst = max(worst, float(np.abs(apply(net, cache.read(study)).logits - stored).max()))
    return reproduction_fault(worst)


def fit(
    cfg: EmbedConfig,
    cache: PixelCache,
    train: pl.DataFrame,
    unseen: pl.DataFrame,
    folder: Path,
    *,
    name: str = "embed",
    seed: int = 0,
    device: str = "auto",
    workers: int = 0,
) -> Embedder:
    """Train one network.

    Args:
        cfg: Network and training.
        cache: Pixels.
        train: Rows of ``cache.slabs`` with labels, whole studies.
        unseen: Rows to report a validation metric on; they choose nothing.
        folder: Receives the weights and, until the end, what a resume needs.
        name: Title of the progress bar.
        seed: Seed of everything random.
        device: ``auto`` or a torch device.
        workers: Threads that read ahead where there is a GPU.

    Returns:
        The trained network in evaluation mode.
    """
    where = resolve_device(device)
    torch.manual_seed(seed)
    net = Embedder(cfg).on(torch.device("cpu"), compiled=True)
    data = SlabDataset(cache, train, cfg.neighbours, cfg.spacing_mm)
    training = EmbedTraining(name, data, train["study"].to_numpy(), cfg, seed, where, workers)
    job = training.job(net, lambda model: _score(model, cache, unseen))
    trained = fit_net(job, cfg, folder, device=where, seed=seed)
    return trained.on(where, compiled=True)  # type: ignore[no-any-return,operator]


@torch.inference_mode()
def apply(embedder: Embedder, volume: Volume, *, tta: bool | None = None) -> Embedding:
    """Embed one study; the result depends on nothing but the study and the network.

    Args:
        embedder: A trained network, in evaluation mode.
        volume: The study.
        tta: Average with the left-right flipped study; None takes the config's.
    """
    cfg, device = embedder.cfg, device_of(embedder)
    pixels = volume.hu if volume.hu.flags.writeable else volume.hu.copy()
    hu = torch.from_numpy(pixels).to(device, non_blocking=device.type == "cuda").float()
    at = torch.from_numpy(neighbour_indices(volume.z_mm, cfg.neighbours, cfg.spacing_mm))
    flips = (False, True) if (cfg.tta if tta is None else tta) else (False,)
    vectors, logits = [], []
    for chunk in at.split(_CHUNK):
        # each slice is windowed once, not once for itself and once for every neighbour
        needed, inverse = (i.to(device, non_blocking=hu.is_cuda) for i in chunk.unique(return_inverse=True))
        stack = embedder.windowed(hu[needed, None])[inverse].flatten(1, 2)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            views = [embedder.embed_within_memory(stack.flip(-1) if flip else stack) for flip in flips]
        vectors.append(torch.stack([v for v, _ in views]).mean(0))
        logits.append(torch.stack([z for _, z in views]).mean(0))
    return Embedding(torch.cat(vectors).cpu().numpy(), torch.cat(logits).double().cpu().numpy())


def load(cfg: EmbedConfig, out: Path, device: str = "auto") -> dict[int, Embedder]:
    """The trained networks of a finished stage, by fold.

    Raises:
        IntegrityError: The stage is not finished, or its weights are damaged.
    """
    where = resolve_device(device)
    parts = open_folds(out)
    nets = {fold: load_embedder(cfg, part.file("last.safetensors")) for fold, part in parts.items()}
    return {fold: net.on(where) for fold, net in nets.items()}


def _labelled(slabs: pl.DataFrame, limit: int | None) -> pl.DataFrame:
    """Rows with labels, of the first ``limit`` studies."""
    labelled = slabs.filter(labelled_rows())
    if limit is None:
        return labelled
    return labelled.filter(
        pl.col("study").is_in(labelled["study"].unique(maintain_order=True).head(limit).implode())
    )


def _build(
    cfg: EmbedConfig, ctx: Context, cache: PixelCache, slabs: pl.DataFrame, fold: int, folder: Path
) -> BuildSummary:
    """Train one fold and embed the studies that it left out."""
    train = slabs.filter(in_folds() & (pl.col("fold") != fold))
    unseen = slabs.filter(pl.col("fold") == fold)
    left_out = slabs.filter(held_out())
    net = fit(
        cfg,
        cache,
        train,
        unseen,
        folder,
        name=f"embed {fold}",
        seed=ctx.seed + 1000 * fold,
        device=ctx.device,
        workers=ctx.workers,
    )
    if unseen.is_empty():
        some = train["study"].unique(maintain_order=True).head(_CHECKED_STUDIES)
        seen = _embed(net, cache, train.filter(pl.col("study").is_in(some.implode())), fold)
        write_table(seen, folder / _CHECK, LOGITS)
    rows = pl.concat([unseen, left_out])
    with array_writer(folder / "vectors.npy", np.float32, (net.features,), rows=len(rows)) as vectors:
        logits = _embed(net, cache, rows, fold, vectors.append)
    write_table(logits, folder / "logits.parquet", LOGITS)
    counts = {"studies trained on": train["study"].n_unique(), "slices embedded": len(rows)}
    return BuildSummary(counts, {}, str(device_of(net)))


def _embed(
    net: Embedder,
    cache: PixelCache,
    rows: pl.DataFrame,
    fold: int,
    keep: Callable[[NDArray[np.float32]], None] = lambda vectors: None,
) -> pl.DataFrame:
    """Pass on the vectors study by study and return the logits in the same order."""
    studies = dict(rows.group_by("study", maintain_order=True))
    volumes = read_studies(cache, [str(study) for (study,) in studies], device_of(net))
    parts = []
    with progress("embed", len(studies)) as advance:
        for slabs, volume in zip(studies.values(), volumes, strict=True):
            embedding = apply(net, volume)
            keep(embedding.vectors)
            parts.append(logit_table(slabs, embedding.logits, net=fold))
            advance(1)
    return pl.concat(parts) if parts else pl.DataFrame(schema=dict(LOGITS))


def _score(net: nn.Module, cache: PixelCache, unseen: pl.DataFrame) -> float:
    """Official metric of a network on studies it was not trained on; NaN if there are none."""
    assert isinstance(net, Embedder)
    if unseen.is_empty():
        return float("nan")
    volumes = read_studies(cache, unseen["study"].unique(maintain_order=True), device_of(net))
    logits = [apply(net, volume, tta=False).logits for volume in volumes]
    return log_loss(unseen.select(CLASSES).to_numpy(), sigmoid(np.concatenate(logits)))
