"""``joint`` (optional): CNN and GRU fine-tuned together on whole studies, out of fold.

1. For each fold of ``embed``, :func:`fit` starts from that fold's CNN and trains on the same patients: first
   a GRU on the frozen CNN, then both. The patients of the fold are in neither training, so no crossing is
   needed.
2. :func:`apply` scores the studies of the fold left out, and the held-out studies.
3. ``fold{k}/``: ``last.safetensors`` (CNN and GRU) and ``logits.parquet``; ``logits.parquet`` beside them
   holds all folds. A fold is an artefact of its own, so jobs can share.
"""

import functools
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from rsna_seq.arrays import Floats, sigmoid
from rsna_seq.config import EmbedConfig, JointConfig
from rsna_seq.console import progress
from rsna_seq.context import Context
from rsna_seq.folds import held_out, in_folds
from rsna_seq.imaging.neighbours import neighbour_indices
from rsna_seq.imaging.volume import Volume
from rsna_seq.labels import CLASSES
from rsna_seq.nets.augment import augment
from rsna_seq.nets.cnn import Embedder, load_embedder, load_weights, weighted_bce
from rsna_seq.nets.joint_model import JointModel, load_joint
from rsna_seq.nets.loop import Job, device_of, resolve_device
from rsna_seq.nets.loop import fit as fit_net
from rsna_seq.nets.weak import padded, sequence_loss
from rsna_seq.nets.whole_studies import StudyBatch, StudyBatches, finest_split, split_studies
from rsna_seq.scoring.metric import log_loss
from rsna_seq.settings.models import STUDY_KEYS
from rsna_seq.store.artifacts import BuildSummary, Key, Manifest, open_artifact
from rsna_seq.store.builds import reproduction_fault
from rsna_seq.store.by_fold import ensure_by_fold
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.provenance import source_digest
from rsna_seq.store.run_folder import RunFolder, open_folds
from rsna_seq.store.study_labels import UNKNOWN
from rsna_seq.store.tables import LOGITS, logit_table, read_table, write_table

_CHECKED_STUDIES = 3
"""Stored studies on which weights are checked when the code has changed."""
_CHUNK = 64
"""Slices per forward pass at inference."""


def run(cfg: JointConfig, ctx: Context, run: RunFolder) -> Manifest | None:
    """Fine-tune the folds that are asked for, and score the studies that each left out.

    Args:
        cfg: Network and training.
        ctx: Seed, device.
        run: Has ``2_cache`` and ``3_embed``; receives ``4_joint``.

    Returns:
        The manifest, or None while folds of other jobs are missing.

    Raises:
        UsageError: A fold of ``joint.folds`` does not exist.
        IntegrityError: An input is not finished, or the folder holds networks that were trained otherwise.
    """
    artifacts = run.open("cache", "embed")
    embed = artifacts["embed"].manifest.section(EmbedConfig)
    parts = open_folds(run["embed"])
    pixels = PixelCache(run["cache"])
    pixels.check()
    known = read_table(artifacts["embed"].file("logits.parquet"), LOGITS)["study"].unique()
    slabs = pixels.slabs.filter(pl.col("study").is_in(known.implode()))

    def build(fold: int, folder: Path) -> BuildSummary:
        start = load_embedder(embed, parts[fold].file("last.safetensors"))
        return _build(cfg, ctx, start, pixels, slabs, fold, folder)

    inputs = {name: artifact.manifest.content for name, artifact in artifacts.items()}
    unused = {"folds", "enabled"} | (STUDY_KEYS if pixels.study_labels is None else set())
    config = {**cfg.model_dump(mode="json", exclude=unused), "seed": ctx.seed}
    key = Key("joint", config, inputs, source_digest(__name__))
    check = functools.partial(_reproduces, cfg, embed, ctx, pixels)
    return ensure_by_fold(run["joint"], key, list(parts), build, check, wanted=cfg.folds, rebuild=ctx.rebuild)


def _reproduces(
    cfg: JointConfig, embed: EmbedConfig, ctx: Context, cache: PixelCache, folder: Path
) -> str | None:
    """Apply stored weights to a few stored studies; a sentence if the logits differ from the stored ones."""
    fold = open_artifact(folder)
    table = read_table(fold.file("logits.parquet"), LOGITS)
    model = load_joint(cfg, embed, fold.file("last.safetensors")).to(resolve_device(ctx.device))
    worst = 0.0
    for study in table["study"].unique(maintain_order=True).head(_CHECKED_STUDIES):
        stored = table.filter(pl.col("study") == study).select(CLASSES).to_numpy()
        worst = max(worst, float(np.abs(apply(model, cache.read(study)) - stored).max()))
    return reproduction_fault(worst)


def fit(
    cfg: JointConfig,
    embedder: Embedder,
    cache: PixelCache,
    train: pl.DataFrame,
    unseen: pl.DataFrame,
    folder: Path,
    *,
    name: str = "joint",
    seed: int = 0,
    device: str = "auto",
) -> JointModel:
    """Train one network: the GRU on the frozen CNN, then both.

    Args:
        cfg: Network and training.
        embedder: The CNN at which training starts; it is changed.
        cache: Pixels.
        train: Rows of ``cache.slabs`` with labels, whole studies.
        unseen: Rows to report a validation metric on; they choose nothing.
        folder: Receives the weights and, until the end, what a resume needs.
        name: Title of the progress bar.
        seed: Seed of everything random.
        device: ``auto`` or a torch device.

    Returns:
        The trained network in evaluation mode.
    """
    where = resolve_device(device)
    torch.manual_seed(seed)
    model = JointModel(cfg, embedder.to(memory_format=torch.channels_last))
    data = StudyBatches(cache, train, embedder.cfg)

    def job(first: int) -> Job:
        return Job(
            name,
            model,
            steps=-(-len(data) // cfg.batch_size),
            batches=lambda epoch: data.epoch(cfg.batch_size, seed=seed, epoch=first + epoch, chunk=cfg.chunk),
            loss=functools.partial(_loss, cfg, partial=data.data.is_partial),
            split=split_studies,
            score=lambda net: _score(net, cache, unseen),
            rates={"embedder": cfg.cnn_lr},
            finest=finest_split,
        )

    head, start = folder / "frozen", folder / "frozen" / "last.safetensors"
    if cfg.frozen_epochs:
        if not start.is_file() or (head / "state.pt").is_file():
            model.freeze(True)
            fit_net(
                job(0), cfg.model_copy(update={"epochs": cfg.frozen_epochs}), head, device=where, seed=seed
            )
        load_weights(model, start)
    model.freeze(False)
    fit_net(job(cfg.frozen_epochs), cfg, folder, device=where, seed=seed + cfg.frozen_epochs)
    for weights in head.glob("*.safetensors"):
        weights.unlink()  # only a resume needs them
    load_weights(model, folder / "last.safetensors")
    return model.eval()


def _loss(cfg: JointConfig, model: nn.Module, batch: StudyBatch, *, partial: bool) -> Tensor:
    """Loss of the refined logits, and of the logits of the CNN."""
    at = device_of(model)
    hu = augment(batch.hu.to(at, non_blocking=True).float(), batch.draws.to(at))
    truth = batch.labels.to(at, non_blocking=True)
    refined, logits = model(hu, batch.z_mm.to(at, non_blocking=True), batch.lengths, batch.chunk)
    if not partial:
        return weighted_bce(refined, truth) + cfg.slice_loss * weighted_bce(logits, truth)
    labels = padded(truth, batch.lengths, UNKNOWN)
    mask = torch.arange(labels.shape[1], device=at) < batch.lengths.to(at)[:, None]
    both = [
        sequence_loss(padded(each, batch.lengths), labels, mask, cfg.study_pool, cfg.study_loss)
        for each in (refined, logits)
    ]
    return both[0] + cfg.slice_loss * both[1]


@torch.inference_mode()
def apply(model: JointModel, volume: Volume, *, tta: bool | None = None) -> Floats:
    """Score one study; the result depends on nothing but the study and the network.

    Args:
        model: A trained network, in evaluation mode.
        volume: The study.
        tta: Average with the left-right flipped study; None takes the setting of ``embed``.

    Returns:
        (slab, 6) logits.
    """
    embedder, device = model.embedder, device_of(model)
    cfg = embedder.cfg
    hu = torch.from_numpy(volume.hu.astype(np.float32)).to(device)
    at = torch.from_numpy(neighbour_indices(volume.z_mm, cfg.neighbours, cfg.spacing_mm)).to(device)
    z_mm = torch.from_numpy((volume.z_mm - volume.z_mm[0]).astype(np.float32)).to(device)
    answers = []
    for flip in (False, True) if (cfg.tta if tta is None else tta) else (False,):
        parts = []
        for chunk in at.split(_CHUNK):
            needed, inverse = chunk.unique(return_inverse=True)  # each slice is windowed once
            stack = embedder.windowed(hu[needed, None])[inverse].flatten(1, 2)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                parts.append(embedder.embed_within_memory(stack.flip(-1) if flip else stack))
        vectors, logits = (torch.cat(part) for part in zip(*parts, strict=True))
        answers.append(model.refine(vectors, logits, z_mm[None], torch.tensor([len(volume)])))
    scored: Floats = torch.stack(answers).mean(0).double().cpu().numpy()
    return scored


def load(cfg: JointConfig, embed: EmbedConfig, out: Path, device: str = "auto") -> dict[int, JointModel]:
    """The trained networks of a finished stage, by fold.

    Args:
        cfg: The config with which the stage was trained.
        embed: The config of the CNN.
        out: The stage's folder.
        device: ``auto`` or a torch device.

    Raises:
        IntegrityError: The stage is not finished, or its weights are damaged.
    """
    where = resolve_device(device)
    parts = open_folds(out)
    models = {k: load_joint(cfg, embed, part.file("last.safetensors")) for k, part in parts.items()}
    return {k: model.to(where, memory_format=torch.channels_last) for k, model in models.items()}  # type: ignore[call-overload]


def _build(
    cfg: JointConfig,
    ctx: Context,
    start: Embedder,
    cache: PixelCache,
    slabs: pl.DataFrame,
    fold: int,
    folder: Path,
) -> BuildSummary:
    """Train one fold and score the studies that it left out."""
    train = slabs.filter(in_folds() & (pl.col("fold") != fold))
    unseen = slabs.filter(pl.col("fold") == fold)
    seed = ctx.seed + 1000 * fold
    name = f"joint {fold}"
    model = fit(cfg, start, cache, train, unseen, folder, name=name, seed=seed, device=ctx.device)
    rows = pl.concat([unseen, slabs.filter(held_out())])
    tables = []
    with progress(name, rows["study"].n_unique()) as advance:
        for (study,), mine in rows.group_by("study", maintain_order=True):
            tables.append(logit_table(mine, apply(model, cache.read(str(study))), net=fold))
            advance(1)
    table = pl.concat(tables) if tables else pl.DataFrame(schema=dict(LOGITS))
    write_table(table, folder / "logits.parquet", LOGITS)
    counts = {"studies trained on": train["study"].n_unique(), "slices scored": len(rows)}
    return BuildSummary(counts, {}, str(device_of(model)))


def _score(net: nn.Module, cache: PixelCache, unseen: pl.DataFrame) -> float:
    """Official metric of a network on studies it was not trained on; NaN if there are none."""
    assert isinstance(net, JointModel)
    if unseen.is_empty():
        return float("nan")
    logits = [
        apply(net, cache.read(str(study)), tta=False) for study in unseen["study"].unique(maintain_order=True)
    ]
    return log_loss(unseen.select(CLASSES).to_numpy(), sigmoid(np.concatenate(logits)))
