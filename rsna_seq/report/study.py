"""The page of one study: answer, findings with thresholds, key images, and the data of the viewer."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import polars as pl

from rsna_seq.clinic.results import ClassThreshold, Finding, Results, Study
from rsna_seq.labels import CLASSES, COLOURS
from rsna_seq.report.images import Images, packed, picture
from rsna_seq.report.page import markup
from rsna_seq.report.worklist import UNCERTAIN, marks_of, one_line_answer

LOCATED = (
    "In colour: where dense tissue raised the answer of the networks for the type; the circle is around the "
    "maximum. On phantoms the maximum was within 5 mm of the haemorrhage in 59 of 60 findings on standard "
    "scanners and in 60 of 61 on others; on patients this was not measured. It is no outline."
)
"""What the coloured key images show."""
_DECIMALS = 4
"""Of the probabilities in the viewer."""


def study_values(
    results: Results,
    study: Study,
    slices: pl.DataFrame,
    read: Callable[[Study, Collection[str]], Images | None] | None,
    pictures: Mapping[str, str],
) -> dict[str, Any]:
    """The variables of ``study.html.j2``.

    Args:
        results: The prediction.
        study: The study.
        slices: PREDICTED_SLICES of the study, with ``number`` and ``edges``.
        read: Reads its images; None for a page without images.
        pictures: By class, the key image that shows where the class was found, as a ``data:`` address.
    """
    keys = {found.key_image.slice for found in study.findings.values()}
    images = read(study, keys) if read is not None else None
    known = study.uncertainty
    unlike = (known.unlike_reason or "reason unknown") if known and known.unlike_training else None
    return {
        "study": study,
        "notices": results.notices,
        "answer": one_line_answer(study),
        "unlike": unlike,
        "uncertain": UNCERTAIN in marks_of(study),
        "spread": known.spread["any"] if known else None,
        "findings": [_finding(results, name, found) for name, found in study.findings.items()],
        "note": results.thresholds.note if results.thresholds else "",
        "prevalences": _prevalences(results),
        "models": results.models,
        "keys": _key_images(study, slices, images, pictures) if images else [],
        "located": LOCATED if images and pictures else None,
        "viewer": _viewer(study, slices, images) if images else None,
        "pixels": markup(packed(images)) if images else None,
        "shown": len(images) if images else 0,
    }


def _finding(results: Results, name: str, found: Finding) -> dict[str, Any]:
    """One row of the table of findings."""
    at = results.thresholds.classes[name] if results.thresholds else ClassThreshold(threshold=found.threshold)
    return {
        "name": name,
        "colour": COLOURS[name],
        "found": found,
        "where": found.key_image.place,
        "scope": {"held_out": "held out", "out_of_fold": "out of fold", None: ""}[at.scope],
        "figures": at.point.figures if at.point else None,
    }


def _prevalences(results: Results) -> list[tuple[str, float]]:
    """The prevalences that the user named."""
    at = results.thresholds.classes if results.thresholds else {}
    return [(name, at[name].prevalence or 0.0) for name in at if at[name].prevalence is not None]


def _key_images(
    study: Study, slices: pl.DataFrame, images: Images, pictures: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The key images of the findings that are shown, each once, with its neighbours."""
    by_slice: dict[str, dict[str, Finding]] = {}
    for name, found in study.shown().items():
        by_slice.setdefault(found.key_image.slice, {})[name] = found
    edges = dict(slices.select("slice", "edges").iter_rows())
    order = sorted(by_slice.items(), key=lambda pair: -max(f.probability for f in pair[1].values()))
    shown = []
    for name, findings in order:
        if name not in images.names:
            continue  # its pixels could not be read a second time
        at = images.names.index(name)
        beside = [(word, i) for word, i in (("below", at - 1), ("above", at + 1)) if 0 <= i < len(images)]
        places = {i: f"z {images.z_mm[i]:.1f} mm" for _, i in beside}
        shown.append(
            {
                "at": at,
                "edges": edges[name],
                "where": next(iter(findings.values())).key_image.place,
                "classes": [(c, f.probability, COLOURS[c]) for c, f in findings.items()],
                "brain": markup(picture(images, at, "brain")),
                "subdural": markup(picture(images, at, "subdural")),
                "located": [(c, markup(pictures[c])) for c in findings if c in pictures],
                "beside": [(word, places[i], markup(picture(images, i, "brain"))) for word, i in beside],
            }
        )
    return shown


def _viewer(study: Study, slices: pl.DataFrame, images: Images) -> dict[str, Any]:
    """What the script of the page needs beside the pixels."""
    about = pl.DataFrame({"slice": images.names}).join(
        slices.unique("slice"), on="slice", how="left", maintain_order="left"
    )
    return {
        "side": images.hu.shape[1],
        "aspect": round(images.aspect, 4),
        "z": [round(z, 2) for z in images.z_mm],
        "number": about["number"].to_list(),
        "edges": about["edges"].to_list(),
        "classes": [
            {
                "name": name,
                "colour": COLOURS[name],
                "p": _rounded(about[name].to_list()),
                "threshold": found.threshold,
                "key": images.names.index(found.key_image.slice)
                if found.key_image.slice in images.names
                else None,
            }
            for name, found in ((name, study.findings[name]) for name in CLASSES)
        ],
    }


def _rounded(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else round(value, _DECIMALS) for value in values]
