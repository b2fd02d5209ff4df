"""``sequence``: a masked bidirectional GRU over the whole study, on out-of-fold embeddings.

1. Every labelled study is a sequence in the space of the one network that never saw it.
2. For each cross fold, :func:`fit_all` trains on the studies of the others. A cross fold holds its share of
   the patients of every embed fold, so each GRU has met every network's space. Small networks of all cross
   folds and seeds are trained as one (:mod:`rsna_seq.nets.batched`).
3. :func:`apply` scores the studies left out; held-out studies are scored for every network and every GRU.
4. ``fold{k}/seed{j}/last.safetensors``, ``model.json``, ``logits.parquet``.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rsna_seq.arrays import sigmoid
from rsna_seq.config import SequenceConfig
from rsna_seq.context import Context
from rsna_seq.errors import NothingUsableError
from rsna_seq.folds import HELD_OUT
from rsna_seq.labels import CLASSES
from rsna_seq.nets.batched import fit_batched
from rsna_seq.nets.batches import Training
from rsna_seq.nets.cnn import load_weights, weighted_bce
from rsna_seq.nets.loop import Job, device_of, resolve_device
from rsna_seq.nets.loop import fit as fit_net
from rsna_seq.nets.sequence_model import SequenceModel
from rsna_seq.nets.studies import (
    EmbeddedStudy,
    Studies,
    augment_study,
    collate,
    length_batches,
    read_embedded_studies,
    to_device,
)
from rsna_seq.nets.weak import sequence_loss
from rsna_seq.scoring.metric import log_loss
from rsna_seq.settings.models import STUDY_KEYS
from rsna_seq.store.artifacts import BuildSummary, Key, Manifest, open_artifact
from rsna_seq.store.builds import ensure, reproduction_fault
from rsna_seq.store.files import write_json
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.provenance import source_digest
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.store.tables import LOGITS, logit_table, read_table, write_table

Batch = tuple[Studies, Tensor]
_BATCHED_HIDDEN = 32
"""Largest hidden size at which networks are trained as one on a CPU; the gain was measured at 24."""
_CHECKED_STUDIES = 3
"""Stored studies of each fold on which weights are checked when the code has changed."""


def run(cfg: SequenceConfig, ctx: Context, run: RunFolder) -> Manifest:
    """Train the crossed folds and score the studies that each left out.

    Args:
        cfg: Network and training.
        ctx: Seed, device.
        run: Has ``2_cache`` and ``3_embed``; receives ``4_sequence``.

    Raises:
        NothingUsableError: There are not two crossed folds.
        IntegrityError: An input is not finished, or the folder holds networks that were trained otherwise.
    """
    artifacts = run.open("cache", "embed")
    inputs = {name: artifact.manifest.content for name, artifact in artifacts.items()}
    cache = PixelCache(run["cache"])
    unused = set(STUDY_KEYS) if cache.study_labels is None else set()
    config = {**cfg.model_dump(mode="json", exclude=unused), "seed": ctx.seed}
    key = Key("sequence", config, inputs, source_digest(__name__))
    slabs = cache.slabs

    def studies() -> list[EmbeddedStudy]:
        return read_embedded_studies(run["embed"], slabs, cache.study_labels)

    def build(folder: Path) -> BuildSummary:
        return _build(cfg, ctx, studies(), slabs, folder)

    def check(folder: Path) -> str | None:
        return _reproduces(cfg, ctx, studies(), folder)

    return ensure(run["sequence"], key, build, learned=True, rebuild=ctx.rebuild, check=check)


def _reproduces(cfg: SequenceConfig, ctx: Context, studies: list[EmbeddedStudy], folder: Path) -> str | None:
    """Apply stored weights to a few stored studies; a sentence if the logits differ from the stored ones."""
    table = read_table(open_artifact(folder).file("logits.parquet"), LOGITS)
    worst = 0.0
    for fold, models in load(cfg, folder, ctx.device).items():
        for s in [s for s in studies if s.cross_fold == fold][:_CHECKED_STUDIES]:
            mine = (pl.col("study") == s.study) & (pl.col("net") == s.net) & (pl.col("cross") == fold)
            stored = table.filter(mine).sort("slab").select(CLASSES).to_numpy()
            worst = max(worst, float(np.abs(apply(models, s.vectors, s.logits, s.z_mm) - stored).max()))
    return reproduction_fault(worst)


def fit(
    cfg: SequenceConfig,
    train: list[EmbeddedStudy],
    unseen: list[EmbeddedStudy],
    folder: Path,
    *,
    name: str = "sequence",
    seed: int = 0,
    device: str = "auto",
) -> SequenceModel:
    """Train one sequence model.

    Args:
        cfg: Network and training.
        train: Labelled studies, each in one network's space.
        unseen: Studies to report a validation metric on; they choose nothing.
        folder: Receives the weights and, until the end, what a resume needs.
        name: Name in messages.
        seed: Seed of everything random.
        device: ``auto`` or a torch device.
    """
    return fit_all(cfg, [Training(name, seed, train, unseen, folder)], folder, device=device)[0]


def fit_all(
    cfg: SequenceConfig, trainings: list[Training], folder: Path, *, device: str = "auto"
) -> list[SequenceModel]:
    """Train several networks of one config: small ones on a CPU as one, others one after another.

    Both ways give the same weights but for rounding and dropout. The time of a small network is mostly the
    start of operations, which networks that are trained as one share.

    Args:
        cfg: Network and training.
        trainings: Seed, studies and folder of each network.
        folder: Receives ``state.pt`` while networks are trained as one.
        device: ``auto`` or a torch device.
    """
    where = resolve_device(device)
    if not cfg.vectors:
        trainings = [t.without_vectors() for t in trainings]
    small = where.type == "cpu" and cfg.hidden <= _BATCHED_HIDDEN
    if small and len(trainings) > 1 and cfg.accumulate == 1 and _world() == 1:
        return fit_batched(cfg, trainings, folder / "state.pt")
    return [_fit_alone(cfg, training, where) for training in trainings]


def _world() -> int:
    """Number of processes that train together, as ``torchrun`` and ``accelerate launch`` set it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _fit_alone(cfg: SequenceConfig, training: Training, device: torch.device) -> SequenceModel:
    """Train one network with the common loop."""
    seed, train, unseen = training.seed, training.train, training.unseen
    torch.manual_seed(seed)
    net = SequenceModel(cfg, train[0].vectors.shape[1])
    partial = any(s.is_partial for s in train)

    def batches(epoch: int) -> Iterator[Batch]:
        random = np.random.default_rng([seed, epoch, 1])
        for chosen in length_batches(train, cfg.batch_size, seed=seed, epoch=epoch):
            yield collate(
                [augment_study(s, random, reverse=cfg.reverse, drop=cfg.drop_slices) for s in chosen]
            )

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        studies = to_device(batch[0], device_of(model))
        mask = studies.mask
        truth = batch[1].to(mask.device)[mask]
        refined, slice_logits = model(studies)
        if partial:
            both = [
                sequence_loss(each, batch[1].to(mask.device), mask, cfg.study_pool, cfg.study_loss)
                for each in (refined, slice_logits)
            ]
            return both[0] + cfg.slice_loss * both[1]
        return weighted_bce(refined[mask], truth) + cfg.slice_loss * weighted_bce(slice_logits[mask], truth)

    steps = -(-len(train) // cfg.batch_size)
    job = Job(training.name, net, steps, batches, loss, _split, lambda model: _score(model, unseen))
    return fit_net(job, cfg, training.folder, device=device, seed=seed)  # type: ignore[return-value]


@torch.inference_mode()
def apply(
    models: list[SequenceModel],
    vectors: NDArray[np.float32],
    logits: NDArray[np.floating],
    z_mm: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Score one study in one network's space.

    Args:
        models: The models of one crossed fold, whose logits are averaged.
        vectors: (slab, feature) of one embedding network.
        logits: (slab, 6) of the same network.
        z_mm: (slab,) position along the slice normal.

    Returns:
        (slab, 6) logits.
    """
    labels = np.zeros((len(z_mm), 1), dtype=np.float32)
    study = EmbeddedStudy("", 0, 0, vectors, logits.astype(np.float32), z_mm.astype(np.float32), labels)
    studies = to_device(collate([study])[0], device_of(models[0]))
    refined = torch.stack([model(studies)[0][0].double() for model in models]).mean(0)
    scored: NDArray[np.float64] = refined.cpu().numpy()
    return scored


def load(cfg: SequenceConfig, out: Path, device: str = "auto") -> dict[int, list[SequenceModel]]:
    """The trained models of a finished stage, by crossed fold.

    Raises:
        IntegrityError: The stage is not finished, or its weights are damaged.
    """
    stage = open_artifact(out)
    model = json.loads(stage.file("model.json").read_text(encoding="utf-8"))
    where = resolve_device(device)
    models: dict[int, list[SequenceModel]] = {}
    for fold in model["folds"]:
        for number in range(cfg.seeds):
            net = SequenceModel(cfg, model["features"])
            load_weights(net, stage.file(f"fold{fold}/seed{number}/last.safetensors"))
            models.setdefault(fold, []).append(net.eval().to(where))
    return models


def _split(batch: Batch, pieces: int) -> list[tuple[Batch, float]]:
    """Cut a batch of studies into pieces, each with its share of the slabs."""
    studies, labels = batch
    size = -(-len(labels) // pieces)
    cuts = [slice(a, a + size) for a in range(0, len(labels), size)]
    slabs = studies.lengths.sum()
    shares = [float(studies.lengths[c].sum() / slabs) for c in cuts]
    return [
        ((Studies(*(t[c] for t in studies)), labels[c]), share) for c, share in zip(cuts, shares, strict=True)
    ]


def _build(
    cfg: SequenceConfig, ctx: Context, sequences: list[EmbeddedStudy], slabs: pl.DataFrame, folder: Path
) -> BuildSummary:
    """Train every crossed fold and write the logits of the studies that each left out."""
    folds = sorted({s.cross_fold for s in sequences if s.cross_fold != HELD_OUT})
    if len(folds) < 2:
        raise NothingUsableError(f"sequence: labelled studies in {len(folds)} crossed folds; two are needed")
    rows = {study: part for (study,), part in slabs.group_by("study", maintain_order=True)}
    trainings = [
        Training(
            f"sequence {fold}, seed {number}",
            ctx.seed + 1000 * fold + number,
            [s for s in sequences if s.cross_fold not in {HELD_OUT, fold}],
            [s for s in sequences if s.cross_fold == fold],
            folder / f"fold{fold}" / f"seed{number}",
        )
        for fold in folds
        for number in range(cfg.seeds)
    ]
    models = fit_all(cfg, trainings, folder, device=ctx.device)
    tables = []
    for at, fold in enumerate(folds):
        own = models[at * cfg.seeds : (at + 1) * cfg.seeds]
        for s in [s for s in sequences if s.cross_fold in {HELD_OUT, fold}]:
            refined = apply(own, s.vectors, s.logits, s.z_mm)
            tables.append(logit_table(rows[s.study], refined, net=s.net, cross=fold))
    table = pl.concat(tables).sort("study", "slab", "net", "cross")
    write_table(table, folder / "logits.parquet", LOGITS)
    write_json(folder / "model.json", {"folds": folds, "features": int(sequences[0].vectors.shape[1])})
    return BuildSummary(
        {"networks": len(folds) * cfg.seeds, "rows of logits": len(table)}, {}, str(device_of(models[0]))
    )


def _score(net: nn.Module, unseen: list[EmbeddedStudy]) -> float:
    """Official metric on studies that were not trained on; NaN if there are none."""
    assert isinstance(net, SequenceModel)
    if not unseen:
        return float("nan")
    logits = np.concatenate([apply([net], s.vectors, s.logits, s.z_mm) for s in unseen])
    return log_loss(np.concatenate([s.labels for s in unseen]), sigmoid(logits))
