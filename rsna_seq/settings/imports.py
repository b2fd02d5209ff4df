"""Config section of ``rsna-seq import``."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rsna_seq.settings.types import File, Section, Text

Column = Literal[
    "id",
    "slice",
    "patient",
    "epidural",
    "intraparenchymal",
    "intraventricular",
    "subarachnoid",
    "subdural",
    "any",
]


def _distinct(columns: dict[Column, Text]) -> dict[Column, Text]:
    """Return the mapping; refuse it if two keys name one column."""
    if len(set(columns.values())) < len(columns):
        raise ValueError("must name each column of the CSV once")
    return columns


class ImportConfig(Section):
    """``rsna-seq import``: where labels are and how to read them."""

    labels: File | None = None
    """Label CSV. ``null`` takes the file that belongs to the data set; ``folder`` needs one unless the set is
    only to be scored."""
    columns: Annotated[dict[Column, Text], AfterValidator(_distinct)] = Field({}, max_length=9)
    """For ``folder``: column of the CSV for ``id``, ``slice``, ``patient`` and each class, such as
    ``{id: Exam, any: ICH}``; the default is the same name. Classes without a column are unknown. ``id``
    names a slice or a study; with ``slice`` it names a study, and ``slice`` is the number of the slice in
    it, from 1."""
    level: Literal["auto", "slice", "study"] = "auto"
    """For ``folder``: what a row of the CSV describes. ``auto`` tells it from the ids."""
    boxes: File | None = None
    """For ``cq500``: a CSV of bounding boxes of BHX, which gives labels of slices."""
