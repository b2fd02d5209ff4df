"""Configuration: one frozen class per stage, and :class:`Config`, which contains them.

The classes are the only place where defaults are defined; those of the stages up to ``stack`` are in
:mod:`rsna_seq.settings.data` and :mod:`rsna_seq.settings.models`. YAML files contain differences from the
defaults, ``key=value`` on the command line overrides them, and ``rsna-seq config`` prints all values. Unknown
keys and values out of bounds are errors. This module does not import torch.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from rsna_seq.errors import UsageError
from rsna_seq.settings.data import CacheConfig, DataConfig, IndexConfig, SynthConfig
from rsna_seq.settings.faults import describe_fault
from rsna_seq.settings.imports import ImportConfig
from rsna_seq.settings.models import EmbedConfig, FitConfig, JointConfig, SequenceConfig, StackConfig
from rsna_seq.settings.service import ServiceConfig
from rsna_seq.settings.types import Millimetres, Section
from rsna_seq.settings.yaml_file import put_override, read_yaml

__all__ = [
    "CacheConfig",
    "Config",
    "DataConfig",
    "EmbedConfig",
    "EvaluateConfig",
    "FitConfig",
    "ImportConfig",
    "IndexConfig",
    "JointConfig",
    "PredictConfig",
    "SequenceConfig",
    "ServiceConfig",
    "StackConfig",
    "SynthConfig",
    "dump_config",
    "load_config",
]

ClassName = Literal["epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any"]
Prevalence = Annotated[float, Field(gt=0, lt=1)]
_SHOWN = 20
"""Largest number of faults listed in a message."""


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
    operating_point: Literal["youden", "sensitivity95", "fixed"] = "youden"
    """Threshold of each class for the probability of a study, above which the results list the class: the one
    with the largest sum of sensitivity and specificity (``youden``), or the highest with a sensitivity of at
    least 95 % (``sensitivity95``), both chosen out of fold by ``evaluate``; or ``threshold`` (``fixed``)."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Threshold of all classes if ``operating_point`` is ``fixed``, and of classes for which the run has
    chosen none."""
    prevalence: Prevalence | dict[ClassName, Prevalence] | None = None
    """Share of your studies that have a haemorrhage: a number for ``any``, or one for each class, such as
    ``{any: 0.1, subdural: 0.04}``. The predictive values (PPV, NPV) are given for it."""
    locate: bool = False
    """Show where in its key image each type above its threshold and 0.5 was found, about half a second of one
    core for each. Off, because one of the rules for showing it is undecided (docs/localization.md)."""
    pages: int = Field(50, ge=0, le=100_000)
    """Number of studies, the most urgent first, that get a page with images and a viewer."""
    image_size: int = Field(384, ge=64, le=1024)
    """Rows and columns of the images in the viewer of a page; a page takes about 3 MB at 384."""

    def prevalence_of(self, name: str) -> float | None:
        """The prevalence of a class that the user named, or None."""
        if isinstance(self.prevalence, dict):
            return {str(of): share for of, share in self.prevalence.items()}.get(name)
        return self.prevalence if name == "any" else None


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
    joint: JointConfig = JointConfig()
    """Optional: CNN and GRU fine-tuned together."""
    stack: StackConfig = StackConfig()
    """Boosted trees, blending and calibration."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Scores and report."""
    predict: PredictConfig = PredictConfig()
    """Predictions for unseen studies."""
    service: ServiceConfig = ServiceConfig()
    """``watch`` and ``serve``."""
    imports: ImportConfig = ImportConfig()
    """``rsna-seq import``."""

    @model_validator(mode="after")
    def _refit_is_read_by_logits(self) -> "Config":
        if self.embed.refit and self.sequence.vectors:
            raise ValueError(
                "embed.refit needs sequence.vectors=false: no sequence model is trained on the vectors of a "
                "network that has seen all patients"
            )
        return self


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
