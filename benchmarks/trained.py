"""A finished run on small phantoms with minimal training."""

from pathlib import Path

from rsna_seq.config import (
    CacheConfig,
    DataConfig,
    EmbedConfig,
    IndexConfig,
    SequenceConfig,
    StackConfig,
    SynthConfig,
)
from rsna_seq.context import Context
from rsna_seq.labels import CLASSES
from rsna_seq.stages import cache, embed, index, sequence, stack
from rsna_seq.stages.predict.trained import TrainedRun
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.tools import synth

_STUDIES, _PIXELS = 6, 64


def train_run(folder: Path, *, backbone: str, size: int) -> TrainedRun:
    """Train a run with two CNN folds and two crossed folds.

    Args:
        folder: Output folder of phantoms and run.
        backbone: Name of a timm model.
        size: Rows and columns of the cached slices in prediction.

    Returns:
        The run with one of the two CNNs, and with all boosters enabled.
    """
    root, run = folder / "phantoms", folder / "run"
    drawn = SynthConfig(studies=_STUDIES, test_studies=0, matrix=_PIXELS, rare_share=0.15, damage=False)
    synth.run(drawn, root, seed=0, workers=1)
    at, ctx = RunFolder(run), Context(data=DataConfig(root=root), device="cpu")
    index.run(IndexConfig(folds=2, cross_folds=2, holdout=0), ctx, at)
    cache.run(CacheConfig(size=_PIXELS), ctx, at)
    cnn = EmbedConfig(backbone=backbone, pretrained=False, epochs=1)
    embed.run(cnn, ctx, at)
    sequence.run(SequenceConfig(epochs=1), ctx, at)
    stack.run(StackConfig(min_leaf=5), ctx, at)
    trained = TrainedRun(run, "cpu")
    trained.embedders = {0: trained.embedders[0]}
    trained.cache = trained.cache.model_copy(update={"size": size})
    for stacker in trained.stackers.values():
        stacker.gates.update(dict.fromkeys(CLASSES, True))
    return trained
