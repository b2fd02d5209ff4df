"""The two pages: a run's report, and the report of a prediction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rsna_seq.artifacts import atomic_path
from rsna_seq.imaging.volume import Volume
from rsna_seq.labels import ANY, CLASSES
from rsna_seq.reasons import Reason
from rsna_seq.report.figures import study_strip

_STRIPS = 12
"""Studies of a prediction that are drawn; the others are listed."""


def render(template: str, out: Path, **values: Any) -> None:
    """Fill a template, everything escaped, and write the page.

    Args:
        template: A file of this folder.
        out: The page.
        values: What the template names; strings that are markup are marked as such by ``markup``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rsna_seq.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template(template).render(classes=CLASSES, **values)
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def markup(text: str) -> Any:
    """Mark a figure of ours as markup, so that it is not escaped."""
    from markupsafe import Markup

    return Markup(text)


def reasons_of(quarantine: pl.DataFrame) -> list[dict[str, Any]]:
    """What was set aside, counted by action and reason, each with its sentence.

    Args:
        quarantine: QUARANTINE.
    """
    counted = quarantine.group_by("action", "reason").len().sort("len", "reason", descending=[True, False])
    return [row | {"sentence": Reason(row["reason"]).sentence} for row in counted.iter_rows(named=True)]


def write_prediction_report(
    slices: pl.DataFrame,
    read: Callable[[str], Volume | None],
    threshold: float,
    out: Path,
    set_aside: pl.DataFrame,
) -> None:
    """Write the report of a prediction: for each study what was found, in which slices, at which z.

    Args:
        slices: PREDICTED_SLICES.
        read: Gives the pixels of a study, or None.
        threshold: Probability above which a class is named with its slices.
        out: The page.
        set_aside: QUARANTINE.
    """
    studies = []
    for number, ((study,), rows) in enumerate(slices.group_by("study", maintain_order=True)):
        studies.append(
            {
                "name": str(study),
                "slices": len(rows),
                "any": rows["any"].max(),
                "found": [
                    _found(rows, name, threshold) for name in CLASSES if (rows[name].max() or 0) > threshold
                ],
                "highest": {name: rows[name].max() for name in CLASSES},
                "strip": _strip(rows, read(str(study))) if number < _STRIPS else None,
            }
        )
    render(
        "prediction.html.j2",
        out,
        studies=studies,
        threshold=threshold,
        reasons=reasons_of(set_aside),
        strips=_STRIPS,
    )


def _found(rows: pl.DataFrame, name: str, threshold: float) -> dict[str, Any]:
    """The slices in which a class lies above the threshold."""
    above = rows.filter(pl.col(name) > threshold)
    return {
        "name": name,
        "count": len(above),
        "low": above["z_mm"].min(),
        "high": above["z_mm"].max(),
        "slices": above.select("slice", "z_mm", pl.col(name).alias("p")).to_dicts(),
    }


def _strip(rows: pl.DataFrame, volume: Volume | None) -> Any:
    """The strip of a study; every slab takes the probability of the slice nearest to it."""
    if volume is None:
        return None
    z_mm = rows["z_mm"].to_numpy()
    nearest = np.abs(z_mm[None] - volume.z_mm[:, None]).argmin(axis=1)
    return markup(study_strip(volume.hu, volume.z_mm, rows.select(CLASSES).to_numpy()[nearest]))


def pick_studies(slices: pl.DataFrame, answers: np.ndarray, count: int) -> list[tuple[str, str]]:
    """Studies that instruct: the one with most classes, the hardest, the clearest negative, then the next.

    Args:
        slices: study and the six labels, one row a slice.
        answers: (slice, 6) probabilities of the highest rung.
        count: How many.

    Returns:
        StudyInstanceUID and why it was picked.
    """
    truth = slices["any"].to_numpy()
    wrong = pl.Series("wrong", np.abs(answers[:, ANY] - truth))
    table = (
        slices.with_columns(wrong)
        .group_by("study", maintain_order=True)
        .agg(
            pl.sum_horizontal(pl.col(c).max() for c in CLASSES).alias("kinds"),
            pl.col("any").max(),
            pl.col("wrong").mean(),
        )
    )
    ranked = {
        "several kinds at once": table.sort("kinds", "study", descending=[True, False]),
        "hard: the answer is far from the truth": table.sort("wrong", "study", descending=[True, False]),
        "no haemorrhage": table.filter(pl.col("any") == 0).sort("wrong", "study"),
        "a haemorrhage, read well": table.filter(pl.col("any") == 1).sort("wrong", "study"),
    }
    picked: dict[str, str] = {}
    for rank in range(count):
        for why, order in ranked.items():
            if rank < len(order) and len(picked) < count and order["study"][rank] not in picked:
                picked[order["study"][rank]] = why
    return list(picked.items())
