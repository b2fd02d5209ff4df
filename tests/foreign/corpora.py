"""The foreign corpora: packages of PyPI and Debian that ship DICOM files which nobody here wrote."""

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Corpus:
    """One package and what of it is read.

    Attributes:
        name: Name of the corpus, and of its folder.
        source: ``wheel`` or ``sdist`` (PyPI), ``deb`` (Debian), or ``written`` (see ``writers.py``).
        package: Name of the package, for PyPI with its version.
        folder: Glob of the folder in the package that is read.
        least: Files of it that are CT images and must be read.
    """

    name: str
    source: str
    package: str
    folder: str = "."
    least: int = 0


CORPORA = [
    Corpus("pydicom", "wheel", "pydicom==3.0.2", "pydicom/data", 14),
    Corpus("pydicom-1", "sdist", "pydicom==1.4.2", "*/pydicom/data", 17),
    Corpus("pydicom-data", "wheel", "pydicom-data==1.0.0", least=5),
    Corpus("nibabel", "wheel", "nibabel==5.4.2", "nibabel/nicom/tests"),
    Corpus("pynetdicom", "wheel", "pynetdicom==3.0.4", "pynetdicom/tests", 2),
    Corpus("deid-data", "sdist", "deid-data==0.0.20"),
    Corpus("dicognito", "sdist", "dicognito==0.19.0", least=1),
    Corpus("heudiconv", "sdist", "heudiconv==1.5.1", "*/heudiconv/tests"),
    Corpus("dicompyler-core", "sdist", "dicompyler-core==0.5.6", "*/tests", 1),
    Corpus("dicomweb-client", "sdist", "dicomweb-client==0.61.2"),
    Corpus("wsidicom-data", "wheel", "wsidicom-data==0.3.0"),
    Corpus("debian-pydicom", "deb", "python3-pydicom", "usr/lib/python3/dist-packages/pydicom/data", 14),
    Corpus("debian-nibabel", "deb", "python3-nibabel", "usr/lib/python3/dist-packages/nibabel"),
    Corpus("octave-dicom", "deb", "octave-dicom"),
    Corpus("dicom3tools", "deb", "dicom3tools", "usr/share"),
    Corpus("dicomnifti", "deb", "dicomnifti", "usr/share"),
    Corpus("dcmtk", "deb", "dcmtk"),
    Corpus("invesalius-examples", "deb", "invesalius-examples"),
    Corpus("by-gdcm", "written", "python-gdcm", least=18),
    Corpus("by-simpleitk", "written", "SimpleITK", least=8),
    Corpus("by-highdicom", "written", "highdicom", least=2),
]


def place() -> Path:
    """The folder that ``make foreign`` fills; RSNA_SEQ_FOREIGN names another."""
    return Path(os.environ.get("RSNA_SEQ_FOREIGN", ROOT / "build" / "foreign"))


def folder_of(corpus: Corpus) -> Path | None:
    """The folder of a corpus that is read; None where it is not installed."""
    whole = place() / corpus.name
    if not (whole / ".complete").exists():
        return None
    return (
        whole / "files" if corpus.folder == "." else next(iter((whole / "files").glob(corpus.folder)), None)
    )
