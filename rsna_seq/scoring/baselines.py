"""Probabilities per slice of every model and baseline, read from the artefacts of the stages."""

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.arrays import Floats, sigmoid
from rsna_seq.errors import IntegrityError, NothingUsableError
from rsna_seq.folds import held_out
from rsna_seq.labels import CLASSES, N_CLASSES
from rsna_seq.scoring.scores import Scope, by_study
from rsna_seq.scoring.smoothing import smooth_along_z
from rsna_seq.store.artifacts import Artifact
from rsna_seq.store.study_labels import slice_labelled
from rsna_seq.store.tables import (
    LOGITS,
    SLABS,
    SLICES,
    STUDY_LABELS,
    STUDY_LABELS_FILE,
    read_table,
)

_MODELS = {
    "cnn": ("embed", "logits.parquet"),
    "sequence": ("sequence", "logits.parquet"),
    "joint": ("joint", "logits.parquet"),
    "stack": ("stack", "logits.parquet"),
}
"""Stage and table that hold the logits of each model; see :func:`_tables` for calibrated logits."""
_BEFORE = "uncalibrated.parquet"
"""Table of ``stack`` that exists only if its final logits are calibrated."""
_KEYS = ["study", "slab"]


def read_models(
    artifacts: Mapping[str, Artifact], smooth_mm: float
) -> tuple[pl.DataFrame, dict[str, Floats]]:
    """Read the labelled slices of a run and the probabilities of each model and baseline.

    Args:
        artifacts: The finished stages of a run, by name.
        smooth_mm: Standard deviation of the Gaussian smoothing along z, in mm.

    Returns:
        The slices (study, slab, slice, patient, fold, z_mm, labels), and (slice, 6) probabilities by model,
        from ``prior`` to ``stack`` or, if a temperature is used, ``calibrated``. Probabilities of a held-out
        slice are the mean over all networks.

    Raises:
        NothingUsableError: No slice has a label.
        IntegrityError: A stage has no prediction for a labelled slice.
    """
    slabs = _labelled_slabs(artifacts)
    slices = slice_labelled(_slices(artifacts["index"], slabs), _study_labels(artifacts))
    slices = slices.filter(pl.any_horizontal(pl.col(c).is_not_null() for c in CLASSES))
    if slices.is_empty():
        run = artifacts["cache"].folder.parent
        raise NothingUsableError(f"{run}: no slice has a label, so nothing can be scored; check data.labels")
    return slices, {"prior": _prior(slices), **_answers(artifacts, slabs, slices, smooth_mm)}


def read_study_models(
    artifacts: Mapping[str, Artifact], smooth_mm: float
) -> tuple[pl.DataFrame, dict[str, Floats]] | None:
    """Read the studies of a run and their highest probabilities, if studies have labels of their own.

    Args:
        artifacts: The finished stages of a run, by name.
        smooth_mm: As in :func:`read_models`.

    Returns:
        The studies with a label, of a slice or of the whole (study, patient, fold, labels), and (study, 6)
        probabilities by model; None if no study has a label of its own.

    Raises:
        IntegrityError: As in :func:`read_models`.
    """
    whole = _study_labels(artifacts)
    if whole is None:
        return None
    slabs = _labelled_slabs(artifacts)
    slices = _slices(artifacts["index"], slabs)
    answers = _answers(artifacts, slabs, slices, smooth_mm)
    first, highest = by_study(slices["study"].to_numpy().astype(str), *answers.values())
    table = slices[first].select("study", "patient", "fold")
    table = table.join(_seen(slices), on="study", how="left", maintain_order="left")
    table = table.join(whole, on="study", how="left", maintain_order="left")
    table = table.select("study", "patient", "fold", *(pl.coalesce(c, f"_{c}").alias(c) for c in CLASSES))
    known = table.select(pl.any_horizontal(pl.col(c).is_not_null() for c in CLASSES)).to_series()
    scored = table.filter(known)
    models = {name: p[known.to_numpy()] for name, p in zip(answers, highest, strict=True)}
    return scored, {"prior": _prior(scored), **models}


def _seen(slices: pl.DataFrame) -> pl.DataFrame:
    """What the slices say of each study: 1 if one has the class, 0 if all are known to lack it, else null."""
    return slices.group_by("study").agg(
        pl.when((pl.col(c) == 1).any())
        .then(1)
        .when(pl.col(c).is_not_null().all())
        .then(0)
        .cast(pl.Int8)
        .alias(f"_{c}")
        for c in CLASSES
    )


def _labelled_slabs(artifacts: Mapping[str, Artifact]) -> pl.DataFrame:
    """SLABS of patients with labels."""
    return read_table(artifacts["cache"].file("slabs.parquet"), SLABS).filter(pl.col("fold").is_not_null())


def _study_labels(artifacts: Mapping[str, Artifact]) -> pl.DataFrame | None:
    """STUDY_LABELS of the cache; None if no study has a label of its own."""
    cache = artifacts["cache"]
    if STUDY_LABELS_FILE not in cache.manifest.files:
        return None
    return read_table(cache.file(STUDY_LABELS_FILE), STUDY_LABELS)


def _answers(
    artifacts: Mapping[str, Artifact], slabs: pl.DataFrame, slices: pl.DataFrame, smooth_mm: float
) -> dict[str, Floats]:
    """(slice, 6) probabilities of each model, and of the smoothed CNN."""
    run = artifacts["cache"].folder.parent
    keyed = slabs.select(*_KEYS, "z_mm", "fold")
    models: dict[str, pl.DataFrame] = {}
    tables = _tables(artifacts)
    for name, (stage, file) in tables.items():
        models[name] = _probabilities(keyed, read_table(artifacts[stage].file(file), LOGITS))
        if name == "cnn":
            models["smoothed"] = _smoothed(models[name], smooth_mm)
    answers = {}
    for name, table in models.items():
        joined = slices.select(*_KEYS).join(table, on=_KEYS, how="left", maintain_order="left")
        answers[name] = joined.select(CLASSES).to_numpy()
        bare = ~np.isfinite(answers[name]).all(axis=1)
        if bare.any():
            n = slices["study"].filter(pl.Series(bare)).n_unique()
            raise IntegrityError(
                f"{run}: {name} has no prediction for slices of {n} studies; "
                f"rebuild the stage {tables[name][0]}"
            )
    return answers


def _tables(artifacts: Mapping[str, Artifact]) -> dict[str, tuple[str, str]]:
    """Return stage and table of each model of the finished stages, ``calibrated`` only if it is used."""
    tables = {name: at for name, at in _MODELS.items() if at[0] in artifacts}
    if "stack" in tables and _BEFORE in artifacts["stack"].manifest.files:
        tables |= {"stack": ("stack", _BEFORE), "calibrated": ("stack", "logits.parquet")}
    return tables


def scopes(slices: pl.DataFrame, models: dict[str, Floats]) -> Iterator[tuple[str, Scope]]:
    """Split slices and models into ``out_of_fold`` and, if patients were held out, ``held_out``."""
    fold = slices["fold"].to_numpy()
    for name, mask in (("out_of_fold", fold >= 0), ("held_out", fold == -1)):
        if mask.any():
            yield (
                name,
                Scope(
                    labels=label_array(slices)[mask],
                    patients=slices["patient"].to_numpy()[mask].astype(str),
                    studies=slices["study"].to_numpy()[mask].astype(str),
                    models={model: p[mask] for model, p in models.items()},
                ),
            )


def label_array(rows: pl.DataFrame) -> NDArray[np.number]:
    """Six label columns as an array: integers, or float64 (polars: float32) with NaN if some are null."""
    labels = rows.select(CLASSES)
    partial = any(labels[c].null_count() for c in CLASSES)
    return (labels.cast(pl.Float64) if partial else labels).to_numpy()


def network_spread(artifacts: Mapping[str, Artifact]) -> dict[str, float] | None:
    """How far the networks differ on held-out studies; out of fold, each study has one network and no spread.

    The spread of a study is the standard deviation, over the pairs of embedding network and crossed model, of
    the highest probability of ``any``, as in ``studies.csv``.

    Args:
        artifacts: The finished stages of a run, by name.

    Returns:
        ``networks``, ``median`` and ``high`` (95th percentile) over the held-out studies; None without them.
    """
    stage, file = list(_tables(artifacts).values())[-1]
    logits = read_table(artifacts[stage].file(file), LOGITS)
    slabs = read_table(artifacts["cache"].file("slabs.parquet"), SLABS)
    held = slabs.filter(held_out())["study"].unique()
    highest = (
        logits.filter(pl.col("study").is_in(held.implode())).group_by("study", "net", "cross").agg("any")
    )
    if highest.is_empty():
        return None
    highest = highest.with_columns(pl.col("any").list.max())
    p = highest.with_columns(pl.Series("any", sigmoid(highest["any"].to_numpy())))
    spread = p.group_by("study").agg(networks=pl.len(), spread=pl.col("any").std(ddof=0))
    middle, high = (float(spread["spread"].quantile(q, "linear") or 0) for q in (0.5, 0.95))
    return {"networks": int(spread["networks"].max()), "median": middle, "high": high}  # type: ignore[arg-type]


def prior_of(labels: pl.DataFrame) -> Floats:
    """Compute the prevalence of each class, (6,), from six label columns; unlabelled rows are ignored."""
    means = labels.select(pl.col(c).mean() for c in CLASSES).row(0)
    return np.array([m if m is not None else 0.5 for m in means], dtype=np.float64).reshape(N_CLASSES)


def slab_prior(slabs: pl.DataFrame, study_labels: pl.DataFrame | None) -> Floats:
    """Compute the prevalence of each class in the slices that were labelled by slice, (6,).

    Args:
        slabs: SLABS.
        study_labels: STUDY_LABELS, or None.
    """
    return prior_of(slice_labelled(slabs, study_labels).drop("hashes").explode("slices"))


def _probabilities(keyed: pl.DataFrame, logits: pl.DataFrame) -> pl.DataFrame:
    """Average the probabilities of each slab over the networks."""
    answers = logits.with_columns(pl.Series(c, sigmoid(logits[c].to_numpy())) for c in CLASSES)
    mean = answers.group_by(_KEYS).agg(pl.col(c).mean() for c in CLASSES)
    return keyed.join(mean, on=_KEYS, how="left", maintain_order="left")


def _smoothed(table: pl.DataFrame, sigma_mm: float) -> pl.DataFrame:
    parts = []
    for _, rows in table.group_by("study", maintain_order=True):
        smooth = smooth_along_z(rows.select(CLASSES).to_numpy(), rows["z_mm"].to_numpy(), sigma_mm)
        parts.append(rows.with_columns(pl.Series(c, smooth[:, i]) for i, c in enumerate(CLASSES)))
    return pl.concat(parts)


def _slices(index: Artifact, slabs: pl.DataFrame) -> pl.DataFrame:
    """Return the slices in the order of the cache, each with its slab and its labels, null where unknown."""
    members = slabs.select(*_KEYS, "patient", "fold", pl.col("slices").alias("slice")).explode("slice")
    truth = read_table(index.file("slices.parquet"), SLICES).select("slice", "z_mm", *CLASSES)
    return members.join(truth, on="slice", how="left", maintain_order="left")


def _prior(slices: pl.DataFrame) -> Floats:
    """Return, for each slice, the prevalences over the development slices of the other folds; (slice, 6)."""
    fold = slices["fold"].to_numpy()
    answer = np.empty((len(slices), len(CLASSES)))
    for k in np.unique(fold):
        others = slices.filter((pl.col("fold") != k) & (pl.col("fold") >= 0))
        answer[fold == k] = np.clip(prior_of(others), 1e-4, 1 - 1e-4)
    return answer
