"""The report of a prediction: a worklist, and one page per study with its key images and a viewer.

1. One study: ``report.html`` is its page.
2. Several: ``report.html`` is the worklist, in the order of urgency, and ``studies/0001.html`` and further
   are the pages of the most urgent ones. Images are read study after study, so memory does not grow.

Every page is a single file that loads nothing: it works from a disk, and no request leaves the browser.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import polars as pl

from rsna_seq.clinic.results import Results, Study
from rsna_seq.report.images import Images
from rsna_seq.report.page import reasons_of, render
from rsna_seq.report.study import study_values
from rsna_seq.report.worklist import UNCERTAIN, WorklistRow, order_by_urgency, row_of, worklist_values
from rsna_seq.store.tables import QUARANTINE

Read = Callable[[Study, Collection[str]], Images | None]
"""Reads the images of a study; those that are named with their neighbours in any case."""
_LISTED = 5000
"""Largest number of studies in the worklist; studies.csv has all."""


def write_prediction_report(
    results: Results,
    slices: pl.DataFrame,
    numbers: pl.DataFrame,
    excluded: pl.DataFrame,
    read: Read,
    out: Path,
    *,
    pages: int,
    pictures: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Write the report of a prediction.

    Args:
        results: The prediction.
        slices: PREDICTED_SLICES.
        numbers: InstanceNumber (``number``) and ``edges`` of each ``slice`` of each ``study``, as in
            :class:`rsna_seq.stages.index.Scan`.
        excluded: QUARANTINE.
        read: Reads the images of a study, or returns None.
        out: Receives ``report.html``, and ``studies/`` if there are several studies.
        pages: Number of studies, the most urgent first, that get a page.
        pictures: By study and class, key images that show where the class was found, as ``data:`` addresses.
    """
    table = slices.join(numbers, on=["study", "slice"], how="left", maintain_order="left")
    parts = {str(name): part for (name,), part in table.group_by("study", maintain_order=True)}
    known = {study.study: study for study in results.studies}
    rows = order_by_urgency([row_of(study, None) for study in results.studies])
    alone = len(rows) == 1
    linked = []
    for place, row in enumerate(rows):
        study, href = known[row.study], None
        if place < max(pages, alone):
            href = None if alone else f"studies/{place + 1:04d}.html"
            shown = (pictures or {}).get(row.study, {})
            values = study_values(results, study, parts[row.study], read if place < pages else None, shown)
            mine = excluded.filter((pl.col("study") == row.study) | pl.lit(alone))
            back = None if alone else "../report.html"
            name = href or "report.html"
            render("study.html.j2", out / name, back=back, reasons=reasons_of(mine), **values)
        linked.append(row_of(study, href))
    if not alone:
        _write_worklist(results, linked, excluded, out, pages)


def _write_worklist(
    results: Results, rows: list[WorklistRow], excluded: pl.DataFrame, out: Path, pages: int
) -> None:
    """Write the worklist of several studies, or of none."""
    uncertain = sum(UNCERTAIN in row.marks for row in rows)
    unlike = sum(bool(s.uncertainty and s.uncertainty.unlike_training) for s in results.studies)
    render(
        "prediction.html.j2",
        out / "report.html",
        notices=results.notices,
        thresholds=results.thresholds,
        above=sum(study.findings["any"].above for study in results.studies),
        uncertain=uncertain,
        unlike=unlike,
        studies=len(rows),
        listed=_LISTED,
        pages=pages,
        reasons=reasons_of(excluded.select(list(QUARANTINE))),
        models=results.models,
        **worklist_values(rows[:_LISTED]),
    )
