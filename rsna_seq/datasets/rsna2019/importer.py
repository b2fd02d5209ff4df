"""RSNA 2019 as an imported set: the layout of the competition, with labels of slices."""

from pathlib import Path

from rsna_seq.config import ImportConfig
from rsna_seq.datasets.files import ReadHeaders, about_studies
from rsna_seq.datasets.imported import ImportedSet, SetInfo, label_rows
from rsna_seq.datasets.rsna2019.label_csv import read_labels
from rsna_seq.datasets.rsna2019.layout import find_layout
from rsna_seq.errors import UsageError
from rsna_seq.imaging.sources import list_files
from rsna_seq.store.tables import QUARANTINE, from_rows

_STAGES = (2, 1)


def read_rsna2019(source: Path, read: ReadHeaders, cfg: ImportConfig) -> ImportedSet:
    """Read the training images of the competition, of stage 2 if both are there.

    Args:
        source: Folder in the layout of the competition.
        read: Reads headers.
        cfg: ``labels`` replaces the label CSV.

    Raises:
        UsageError: There are no training images or labels, or the labels contradict each other.
    """
    layouts = [find_layout(source, stage) for stage in _STAGES]
    layout = next((found for found in layouts if found.train is not None), layouts[0])
    labels = cfg.labels or layout.labels
    if layout.train is None or labels is None:
        raise UsageError(
            f"{source}: no stage_2_train with stage_2_train.csv; is this the folder of the competition?"
        )
    truth = read_labels(labels)
    listing = list_files(layout.train)
    headers, aside = read(listing)
    keyed = headers.select("slice", "study").unique("slice", keep="first", maintain_order=True)
    known = truth.join(keyed, on="slice", how="inner", maintain_order="left")
    lost = len(truth) - len(known)
    notes = (f"no readable slice for {lost:,} of the labels",) if lost else ()
    info = SetInfo(
        dataset="rsna2019",
        source=listing.root.resolve(),
        external=False,
        derived_from="rsna2019",
        notes=notes,
    )
    about = about_studies(headers, listing.root, {})
    return ImportedSet(info, headers, label_rows(known, "slice"), about, from_rows(aside, QUARANTINE))
