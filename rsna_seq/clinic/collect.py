"""From the tables of a prediction to :class:`rsna_seq.clinic.results.Results`."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from rsna_seq.clinic.results import (
    RESEARCH_ONLY,
    ClassThreshold,
    Excluded,
    Finding,
    KeyImage,
    Model,
    Results,
    Study,
    Thresholds,
    Uncertainty,
)
from rsna_seq.clinic.sources import replaced_uids
from rsna_seq.labels import CLASSES
from rsna_seq.models import PHANTOMS_ONLY
from rsna_seq.store.provenance import package_version

_DECIMALS = 8
"""As in ``slices.csv`` and ``studies.csv``."""


def collect(
    studies: pl.DataFrame,
    slices: pl.DataFrame,
    indexed: pl.DataFrame,
    excluded: pl.DataFrame,
    *,
    models: Sequence[Model],
    root: str,
    thresholds: Thresholds,
    seconds: Mapping[str, float],
    numbers: pl.DataFrame | None = None,
) -> Results:
    """Gather the results of a prediction.

    Args:
        studies: One row per study, as in ``studies.csv``: for each class the maximum and its slice; the
            columns of STUDY_CHECKS, where it has them, become the uncertainty.
        slices: PREDICTED_SLICES.
        indexed: SLICES, from which the prediction was made.
        excluded: QUARANTINE.
        models: The models whose probabilities were averaged.
        root: Folder that files are relative to.
        thresholds: Threshold of each class.
        seconds: Time for each study.
        numbers: InstanceNumber (``number``) of each ``slice`` of each ``study``, where it is known.
    """
    patients = dict(indexed.select("study", "patient").unique("study").iter_rows())
    lost = dict(excluded.drop_nulls("study").group_by("study").len().iter_rows())
    if numbers is None:
        numbers = slices.select("study", "slice", number=pl.lit(None, pl.Int64))
    about = slices.join(numbers, on=["study", "slice"], how="left", maintain_order="left")
    keys = {
        (row["study"], row["slice"]): KeyImage(**{k: row[k] for k in KeyImage.model_fields})
        for row in about.select("study", *KeyImage.model_fields).iter_rows(named=True)
    }
    found = []
    for row in studies.iter_rows(named=True):
        name = row["study"]
        findings = {
            c: _finding(row[c], keys[name, row[f"{c}_slice"]], thresholds.classes[c]) for c in CLASSES
        }
        images = [each.key_image for each in findings.values()]
        found.append(
            Study(
                study=name,
                patient=patients.get(name) or "",
                slices=row["slices"],
                excluded=lost.get(name, 0),
                findings=findings,
                uncertainty=_uncertainty(row),
                replaced_uids=replaced_uids(name, images),
                seconds=round(seconds.get(name, 0.0), 3),
            )
        )
    notices = [PHANTOMS_ONLY] if any(model.phantoms_only for model in models) else []
    return Results(
        version=package_version(),
        notices=[*notices, RESEARCH_ONLY],
        models=list(models),
        root=root,
        thresholds=thresholds,
        studies=found,
        excluded=[Excluded(**row) for row in excluded.select(*Excluded.model_fields).iter_rows(named=True)],
        seconds=round(sum(seconds.values()), 3),
    )


def _uncertainty(row: Mapping[str, Any]) -> Uncertainty | None:
    """The columns of STUDY_CHECKS of a study, if there are any."""
    if row.get("unlike_training") is None:
        return None
    return Uncertainty(
        unlike_training=row["unlike_training"],
        unlike_reason=row["unlike_reason"] or None,
        novelty=row["novelty"],
        spread={name: row[f"{name}_spread"] for name in CLASSES},
    )


def _finding(probability: float, key: KeyImage, at: ClassThreshold) -> Finding:
    """One class of a study, with the probability that the tables show."""
    shown = round(probability, _DECIMALS)
    known = at.model_dump(include={"threshold", "sensitivity", "specificity", "ppv", "npv"})
    return Finding(probability=shown, above=shown > at.threshold, key_image=key, **known)
