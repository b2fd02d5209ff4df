"""Self-contained HTML pages from the templates of this folder."""

from pathlib import Path
from typing import Any

import polars as pl

from rsna_seq.labels import CLASSES
from rsna_seq.reasons import Reason
from rsna_seq.store.files import write_text
from rsna_seq.store.provenance import package_version


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
    known = {"classes": CLASSES, "version": package_version()}
    return environment.get_template(template).render(known | values)


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
