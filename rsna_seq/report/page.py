"""Self-contained HTML pages, and the report of a prediction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rsna_seq.imaging.volume import Volume
from rsna_seq.labels import CLASSES, COLOURS
from rsna_seq.reasons import Reason
from rsna_seq.report.strip import study_strip
from rsna_seq.store.files import write_text
from rsna_seq.store.provenance import package_version

_STRIPS, _LISTED = 12, 200
"""Largest number of studies of a prediction that are drawn, and that are listed, to limit the page size."""


def page_text(template: str, **values: Any) -> str:
    """Fill a template with escaped values.

    Args:
        template: Name of a template in this folder.
        values: Variables of the template; strings from :func:`markup` are not escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rsna_seq.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template).render(classes=CLASSES, **{"version": package_version(), **values})


def render(template: str, out: Path, **values: Any) -> None:
    """Fill a template with escaped values and write the page.

    Args:
        template: Name of a template in this folder.
        out: Output file.
        values: As of :func:`page_text`.
    """
    write_text(out, page_text(template, **values))


def markup(text: str) -> Any:
    """Mark a figure of this package as markup, so that it is not escaped."""
    from markupsafe import Markup

    return Markup(text)


def reasons_of(quarantine: pl.DataFrame) -> list[dict[str, Any]]:
    """Count excluded input by action and reason, with the sentence of each reason.

    Args:
        quarantine: QUARANTINE.

    Returns:
        Rows with ``action``, ``reason``, ``len`` and ``sentence``, the most frequent first.
    """
    counted = quarantine.group_by("action", "reason").len().sort("len", "reason", descending=[True, False])
    return [row | {"sentence": Reason(row["reason"]).sentence} for row in counted.iter_rows(named=True)]


def write_prediction_report(
    slices: pl.DataFrame,
    checks: pl.DataFrame,
    read: Callable[[str], Volume | None],
    threshold: float,
    out: Path,
    excluded: pl.DataFrame,
    notice: str | None = None,
) -> None:
    """Write the report of a prediction: the positive classes of each study, with their slices and z.

    Args:
        slices: PREDICTED_SLICES.
        checks: STUDY_CHECKS.
        read: Returns the pixels of a study, or None.
        threshold: Probability above which a class is listed with its slices.
        out: Output file.
        excluded: QUARANTINE.
        notice: What a reader must know about the model, shown above the studies.
    """
    known = {row["study"]: row for row in checks.iter_rows(named=True)}
    studies = []
    for number, ((study,), rows) in enumerate(slices.group_by("study", maintain_order=True)):
        found = [_found(rows, name, threshold) for name in CLASSES if bool((rows[name] > threshold).any())]
        studies.append(
            {
                "name": str(study),
                "slices": len(rows),
                "any": rows["any"].max(),
                "spread": known[study]["any_spread"],
                "unlike": known[study]["unlike_reason"],
                "found": found,
                "strip": _strip(rows, read(str(study))) if number < _STRIPS else None,
            }
        )
    render(
        "prediction.html.j2",
        out,
        studies=studies,
        shown=studies[:_LISTED],
        unlike=sum(bool(study["unlike"]) for study in studies),
        named=sum(bool(study["found"]) for study in studies),
        threshold=threshold,
        reasons=reasons_of(excluded),
        strips=_STRIPS,
        notice=notice,
        version=package_version(),
    )


def _found(rows: pl.DataFrame, name: str, threshold: float) -> dict[str, Any]:
    """Return the slices in which a class is above the threshold, and the ranges of z that they cover."""
    ordered = rows.sort("z_mm", maintain_order=True).with_columns(above=pl.col(name) > threshold)
    spans = (
        ordered.with_columns(run=pl.col("above").rle_id())
        .filter("above")
        .group_by("run", maintain_order=True)
        .agg(low=pl.col("z_mm").min(), high=pl.col("z_mm").max())
    )
    above = ordered.filter("above").select("slice", "z_mm", pl.col(name).alias("p"))
    return {
        "name": name,
        "colour": COLOURS[name],
        "count": len(above),
        "spans": spans.select("low", "high").rows(),
        "slices": above.to_dicts(),
    }


def _strip(rows: pl.DataFrame, volume: Volume | None) -> Any:
    """Draw the strip of a study; every slab takes the probability of the nearest slice."""
    if volume is None:
        return None
    z_mm = rows["z_mm"].to_numpy()
    nearest = np.abs(z_mm[None] - volume.z_mm[:, None]).argmin(axis=1)
    return markup(study_strip(volume.hu, volume.z_mm, rows.select(CLASSES).to_numpy()[nearest]))
