"""The importers by name: each reads a folder into an :class:`~rsna_seq.datasets.imported.ImportedSet`."""

from collections.abc import Callable, Mapping
from pathlib import Path

from rsna_seq.config import ImportConfig
from rsna_seq.datasets.bhsd import read_bhsd
from rsna_seq.datasets.cq500 import read_cq500
from rsna_seq.datasets.files import ReadHeaders
from rsna_seq.datasets.folder import read_folder
from rsna_seq.datasets.imported import DatasetName, ImportedSet
from rsna_seq.datasets.physionet import read_physionet
from rsna_seq.datasets.rsna2019.importer import read_rsna2019

IMPORTERS: Mapping[DatasetName, Callable[[Path, ReadHeaders, ImportConfig], ImportedSet]] = {
    "rsna2019": read_rsna2019,
    "cq500": read_cq500,
    "physionet": read_physionet,
    "bhsd": read_bhsd,
    "folder": read_folder,
}
