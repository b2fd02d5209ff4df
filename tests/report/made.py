"""Reports of small DICOM studies with made-up probabilities, for tests of this folder."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from dicoms import head, write_slice

from rsna_seq.clinic.collect import collect
from rsna_seq.clinic.results import ClassThreshold, Model, Results, Study, Thresholds
from rsna_seq.config import IndexConfig
from rsna_seq.datasets.rsna2019.submission import studies_table
from rsna_seq.labels import CLASSES
from rsna_seq.report.images import Images, read_images
from rsna_seq.report.prediction import write_prediction_report
from rsna_seq.stages import index
from rsna_seq.store.tables import STUDY_CHECKS, from_rows

MODEL = Model(name="model", version="0.1.0", digest="ab" * 32, phantoms_only=True)
FIXED = Thresholds(
    operating_point="fixed",
    note="All classes have the threshold 0.5.",
    classes={name: ClassThreshold(threshold=0.5) for name in CLASSES},
)


def study_files(folder: Path, study: str, slices: int = 6, bleed: int = 3, **elements: object) -> None:
    """A study whose slices are 5 mm apart; InstanceNumber falls towards the vertex."""
    for k in range(slices):
        hu = head(5.0 * k, bleed=k == bleed)
        about = {"PatientID": f"P {study}", "InstanceNumber": slices - k, **elements}
        write_slice(folder, f"{study}_{k}", study=study, z=5.0 * k, hu=hu, **about)


@dataclass(frozen=True)
class Made:
    """A report, and what it was made from."""

    results: Results
    out: Path

    def page(self, name: str = "report.html") -> str:
        return (self.out / name).read_text(encoding="utf-8")


def report_of(
    source: Path,
    out: Path,
    any_: dict[str, list[float]],
    *,
    pages: int = 50,
    size: int = 64,
    unlike: str = "",
    spread: float = 0.0,
    thresholds: Thresholds = FIXED,
) -> Made:
    """Index a folder, give its slices probabilities, and write the report.

    Args:
        source: DICOM files.
        out: Receives the report.
        any_: By study, the probability of ``any`` of each slice; that of ``subdural`` is 0.9 of it.
        pages: Number of pages.
        size: Rows and columns of an image.
        unlike: Why all studies are unlike training; empty if they are not.
        spread: Standard deviation over the networks.
        thresholds: Of the findings.
    """
    scan = index.scan([source], IndexConfig())
    most = np.array([p for study in scan.slices["study"].unique(maintain_order=True) for p in any_[study]])
    drawn = dict.fromkeys(CLASSES, 0.02 * most) | {"subdural": 0.9 * most, "any": most}
    slices = scan.slices.select("study", "series", "slice", "file", "z_mm").with_columns(
        pl.Series(name, p, pl.Float64) for name, p in drawn.items()
    )
    about = {"unlike_training": bool(unlike), "unlike_reason": unlike, "novelty": 0.5}
    about |= {f"{name}_spread": spread for name in CLASSES}
    studies = studies_table(slices)
    checks = from_rows([{"study": name, **about} for name in studies["study"]], STUDY_CHECKS)
    results = collect(
        studies.join(checks, on="study"),
        slices,
        scan.slices,
        scan.quarantine,
        models=[MODEL],
        root=str(scan.root),
        thresholds=thresholds,
        seconds={},
        numbers=scan.numbers,
    )

    def read(study: Study, keys: Collection[str]) -> Images | None:
        rows = scan.slices.filter(pl.col("study") == study.study).sort("z_mm")
        return read_images(rows, scan.root, size, keys)

    write_prediction_report(results, slices, scan.numbers, scan.quarantine, read, out, pages=pages)
    return Made(results, out)
