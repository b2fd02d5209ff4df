"""Input of the benchmarks: phantoms from ``synth``, and many files copied from a few."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from harness import Options
from pydicom import config, dcmread

from rsna_seq.config import CacheConfig, DataConfig, IndexConfig, SynthConfig
from rsna_seq.context import Context
from rsna_seq.stages import cache, index
from rsna_seq.store.artifacts import BuildSummary, Key
from rsna_seq.store.builds import ensure
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.store.tables import SLICES, read_table, write_table
from rsna_seq.tools import synth

_ENOUGH = 4
"""Number of rendered studies; all others are copies of them."""


@dataclass(frozen=True)
class Template:
    """File from which copies are made."""

    head: bytes
    """Bytes before the value of PixelData."""
    pixels: bytes
    ids: tuple[str, str, str]
    """SOPInstanceUID, StudyInstanceUID, SeriesInstanceUID."""
    plain: bool
    """16 bits stored without wrap-around, which all peers read in the same way."""


@contextmanager
def scratch(data: Path) -> Iterator[Path]:
    """Create a temporary folder and delete it afterwards."""
    data.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="scratch_", dir=data))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def templates(options: Options) -> list[list[Template]]:
    """Return phantom studies with slices in the order of their positions; rendered once and kept."""
    matrix, studies = options.matrix, 2 if options.toy else _ENOUGH
    root = options.data / f"phantoms_{matrix}_{studies}"
    synth.run(
        SynthConfig(studies=studies, test_studies=0, matrix=matrix, damage=False), root, seed=7, workers=1
    )
    found: dict[str, list[tuple[float, Template]]] = {}
    for file in sorted((root / "stage_2_train").glob("*.dcm")):
        with config.disable_value_validation():
            header = dcmread(file, stop_before_pixels=True)
        whole = file.read_bytes()
        count = 2 * header.Rows * header.Columns
        ids = (header.SOPInstanceUID, header.StudyInstanceUID, header.SeriesInstanceUID)
        texts = tuple(str(i) for i in ids)
        template = Template(whole[:-count], whole[-count:], texts, header.BitsStored == 16)  # type: ignore[arg-type]
        place = float(header.ImagePositionPatient[2])
        found.setdefault(texts[1], []).append((place, template))
    return [[t for _, t in sorted(slices, key=lambda s: s[0])] for slices in found.values()]


def plain(studies: list[list[Template]]) -> list[list[Template]]:
    """Return the studies whose pixels all peers read in the same way."""
    kept = [study for study in studies if all(t.plain for t in study)]
    assert kept, "no phantom study of 16 bits"
    return kept


def write_copies(
    studies: list[list[Template]],
    files: int,
    folder: Path,
    *,
    hollow: bool = False,
    slices: int | None = None,
) -> list[Path]:
    """Write copies of studies, each with its own ids, until the number of files is reached.

    A copy keeps its patient, because the package reports equal pixels under two patients as a fault.

    Args:
        studies: Studies to copy.
        files: Number of files; the last study may be incomplete.
        folder: Output folder; all files are in one folder, as in the competition.
        hollow: Write the pixels as a hole of a sparse file, which needs one block on disk.
        slices: Slices per study; None keeps the number of the phantom.

    Returns:
        Paths of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    number = 0
    while len(paths) < files:
        for template in studies[number % len(studies)][:slices]:
            if len(paths) == files:
                break
            paths.append(_write(template, folder, number, len(paths), hollow))
        number += 1
    return paths


def _write(template: Template, folder: Path, study: int, image: int, hollow: bool) -> Path:
    """Write one copy, with each id replaced by another id of the same length."""
    head = template.head
    numbers = (image, study, study)
    names = [f"ID_{n:0{len(old) - 3}x}" for old, n in zip(template.ids, numbers, strict=True)]
    for old, new in zip(template.ids, names, strict=True):
        head = head.replace(old.encode(), new.encode())
    path = folder / f"{names[0]}.dcm"
    with path.open("wb") as file:
        file.write(head)
        if hollow:
            file.truncate(len(head) + len(template.pixels))
        else:
            file.write(template.pixels)
    return path


def write_cache(options: Options, folder: Path, slices: int, *, size: int | None = None) -> PixelCache:
    """Index and cache phantoms in ``folder``, at half their size or at ``size`` pixels."""
    write_copies(templates(options), slices, folder / "files")
    index.run(IndexConfig(), Context(data=DataConfig(root=folder / "files")), RunFolder(folder))
    cache.run(
        CacheConfig(size=size or options.matrix // 2),
        Context(data=DataConfig(root=folder / "files")),
        RunFolder(folder),
    )
    return PixelCache(folder / "2_cache")


def grow_index(few: Path, many: Path, slices: int) -> None:
    """Write a large index over the files of a small one, so that all files stay in the page cache.

    Args:
        few: The folder of a finished index.
        many: Output folder of the larger index. Whole studies are copied, so it may contain more slices.
        slices: Minimum number of slices.
    """
    rows = read_table(few / "slices.parquet", SLICES)
    copies = [
        rows.with_columns((pl.col(name) + f"-{k:05d}") for name in ("study", "slice"))
        for k in range(-(-slices // len(rows)))
    ]

    def build(out: Path) -> BuildSummary:
        write_table(pl.concat(copies), out / "slices.parquet", SLICES)
        return BuildSummary({}, {})

    ensure(many, Key("index", {"slices": slices}, {}, "benchmark"), build)
