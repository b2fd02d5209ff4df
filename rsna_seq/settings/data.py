"""Config sections of the stages that prepare images: ``data``, ``synth``, ``index`` and ``cache``."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from rsna_seq.settings.types import File, Millimetres, Section, Text
from rsna_seq.spacing import NOMINAL_SPACING_MM


class DataConfig(Section):
    """Input images and labels."""

    root: File = Path("data")
    """Folder of the competition's data set (either layout), any folder of DICOM or NIfTI files, or a set
    of tables that ``rsna-seq import`` wrote."""
    sets: tuple[File, ...] = ()
    """Imported sets to train on together, instead of ``root``."""
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
    """Add two truncated files and list four images twice, as in the real data set; DICOM only."""
    scanners: Literal["standard", "unseen", "varied"] = "standard"
    """Simulated scanners: ``standard``, those of the competition; ``unseen``, far from them in HU, noise,
    thickness, kernel or sampling, as a test set; ``varied``, the whole range, as a training set."""
    format: Literal["dicom", "hu"] = "dicom"
    """``dicom`` writes DICOM files; ``hu`` writes the outputs of ``index`` and ``cache`` of a run directly,
    without DICOM files and test studies, for training on many phantoms."""


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
    slab_mm: Millimetres = NOMINAL_SPACING_MM
    """Slab thickness, in mm, to which thin-slice series are averaged."""
    thin_mm: float = Field(2.0, ge=0, le=1000)
    """Slice spacing, in mm, below which a series is averaged to slabs; at most ``slab_mm``. 0 disables it."""
    brain_hu: float | None = Field(31.0, ge=0, le=80)
    """Nominal mode of brain tissue, in HU: each study is shifted so that its own mode becomes this value,
    because scanners differ by up to 20 HU. ``null`` disables the shift."""
    max_hu_shift: float = Field(20.0, ge=0, le=100)
    """Largest such shift, in HU; a larger one is limited to this value."""
    shard_slices: int = Field(512, ge=1, le=1_000_000)
    """Number of slices after which a new shard is started; a study is never split."""

    @model_validator(mode="after")
    def _slabs_hold_slices(self) -> Self:
        if self.thin_mm > self.slab_mm:
            raise ValueError(
                f"thin_mm={self.thin_mm:g} is above slab_mm={self.slab_mm:g}: slabs would be empty; lower it"
            )
        return self
