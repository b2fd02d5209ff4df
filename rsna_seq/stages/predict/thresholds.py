"""The thresholds of a prediction: those that the run chose out of fold, or the one of the config.

1. :func:`read_points`: the thresholds that ``evaluate`` wrote, from a run or a bundle.
2. :func:`thresholds_for`: those of ``predict.operating_point``, with what they do to studies that did not
   choose them. ``predict.threshold`` takes their place where there are none, and the result says why.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rsna_seq.clinic.results import ClassThreshold, Thresholds
from rsna_seq.config import PredictConfig
from rsna_seq.labels import CLASSES
from rsna_seq.scoring.operating_points import FILE, OperatingPoint, OperatingPoints, predictive_values
from rsna_seq.store.artifacts import Artifact, Manifest, load_manifest
from rsna_seq.store.run_folder import RunFolder

_CRITERION = {
    "sensitivity95": "the highest threshold with a sensitivity of at least 95 %",
    "youden": "the threshold with the largest sum of sensitivity and specificity (Youden)",
}
_AGAIN = "run `rsna-seq evaluate` on it, and write its bundle again"


class RunPoints(NamedTuple):
    """The thresholds of a run; if it has none, ``absent`` says why."""

    points: OperatingPoints | None
    absent: str = ""

    @property
    def digest(self) -> str:
        """Digest of the thresholds, or of why there are none."""
        known = self.points.model_dump_json() if self.points else self.absent
        return hashlib.sha256(known.encode()).hexdigest()


def read_points(run: RunFolder, made: Mapping[str, Manifest]) -> RunPoints:
    """Read the thresholds of a run, or of an extracted bundle; a run without them can still be used.

    Args:
        run: The run.
        made: Manifests of the stages that give its probabilities.

    Raises:
        IntegrityError: The file of the thresholds is damaged.
    """
    if not run.is_finished("evaluate"):
        return RunPoints(None, f"evaluate is not finished in this run ({_AGAIN})")
    stage = Artifact(run["evaluate"], load_manifest(run["evaluate"]))
    if FILE not in stage.manifest.files:
        return RunPoints(None, f"evaluate wrote no thresholds in this run ({_AGAIN})")
    known = stage.manifest.inputs
    if any(name in known and known[name] != manifest.content for name, manifest in made.items()):
        return RunPoints(None, f"evaluate scored other weights than those of this run ({_AGAIN})")
    return RunPoints(OperatingPoints.model_validate_json(stage.file(FILE).read_bytes()))


def thresholds_for(cfg: PredictConfig, runs: Sequence[RunPoints]) -> Thresholds:
    """The threshold of each class.

    Args:
        cfg: Operating point, fixed threshold, prevalence.
        runs: The thresholds of the runs that are averaged.
    """
    absent = _why_fixed(cfg, runs)
    chosen = {}
    if not absent and runs[0].points is not None and cfg.operating_point != "fixed":
        chosen = runs[0].points.criteria.get(cfg.operating_point, {})
    classes = {name: _threshold(cfg, name, chosen.get(name)) for name in CLASSES}
    if absent or not chosen:
        reason = absent or "the run has fewer than five studies with, or without, each class"
        note = f"All classes have the threshold {cfg.threshold:g} (predict.threshold): {reason}."
        return Thresholds(operating_point="fixed", note=note, classes=classes)
    note = (
        f"Thresholds were chosen out of fold: {_CRITERION[cfg.operating_point]}. Sensitivity and specificity "
        "are those of studies that did not choose the threshold."
    )
    if without := [name for name in CLASSES if name not in chosen]:
        note += f" {', '.join(without)}: too few studies, so {cfg.threshold:g} (predict.threshold)."
    return Thresholds(operating_point=cfg.operating_point, note=note, classes=classes)


def _why_fixed(cfg: PredictConfig, runs: Sequence[RunPoints]) -> str:
    """Why no class has a threshold that was chosen; empty if one may have."""
    if cfg.operating_point == "fixed":
        return "predict.operating_point is fixed"
    if len(runs) > 1:
        return "several runs are averaged, and a threshold that one run chose does not hold for the average"
    return runs[0].absent


def _threshold(cfg: PredictConfig, name: str, point: OperatingPoint | None) -> ClassThreshold:
    """The threshold of a class, with its figures."""
    if point is None:
        return ClassThreshold(threshold=cfg.threshold)
    found, prevalence = point.figures, cfg.prevalence_of(name)
    known = ClassThreshold(threshold=point.threshold, point=point, scope=point.scope)
    if found is None:
        return known
    values = (None, None) if prevalence is None else predictive_values(found, prevalence)
    return known.model_copy(
        update={
            "sensitivity": found.sensitivity.value,
            "specificity": found.specificity.value,
            "prevalence": prevalence,
            "ppv": values[0],
            "npv": values[1],
        }
    )
