"""Phantom studies on disk, in the layout in which the competition's set is downloaded.

1. Plan both splits as a whole (:mod:`rsna_seq.phantom.studies`).
2. Draw, render and write each study on its own, in as many processes as asked; bytes depend on the seed only.
3. Write the label CSV, the sample submission and the truth of the test images, and the manifest last. Unless
   all scanners are standard, ``phantom_scanners.csv`` has the drawn values of each study's scanner.

:mod:`rsna_seq.tools.phantom_run` writes the same studies to the stages of a run, without DICOM files.
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from blake3 import blake3

from rsna_seq.config import SynthConfig
from rsna_seq.console import progress
from rsna_seq.errors import EnvironmentFaultError, UsageError
from rsna_seq.labels import CLASSES
from rsna_seq.parallel.local import WorkerDied, parallel_map
from rsna_seq.phantom.studies import StudyTask, make_study, plan_set
from rsna_seq.phantom.writer import slice_bytes
from rsna_seq.store.artifacts import BuildSummary, Key
from rsna_seq.store.builds import ensure
from rsna_seq.store.files import write_bytes, write_text
from rsna_seq.store.outputs import journal_names
from rsna_seq.store.provenance import source_digest

DUPLICATED = 4
"""Training images whose six rows are in the CSV twice."""
SCANNERS = "phantom_scanners.csv"
"""Name of the table of the scanners."""


@dataclass(frozen=True)
class SynthReport:
    """What was written, or found."""

    studies: int
    slices: int
    files: int
    digest: str
    """Of all files' names and bytes."""
    reused: bool


@dataclass(frozen=True)
class _Written:
    """Labels, scanner and files of a study that was written."""

    labels: list[tuple[str, tuple[int, ...]]]
    """Id and six labels of each image."""
    scanner: dict[str, Any]
    digests: list[tuple[str, str]]
    """Path below the root, and BLAKE3, of each file."""


def run(cfg: SynthConfig, out: Path, *, seed: int, workers: int) -> SynthReport:
    """Write a phantom data set as DICOM, or find it already there.

    Args:
        cfg: How many studies of which kind; ``format`` is not used here.
        out: Root of the data set.
        seed: The same seed gives the same bytes, however many workers there are.
        workers: Processes; 1 stays in this one.

    Raises:
        UsageError: The folder holds no phantom set, but files, or other files under the names of this one.
    """
    built: list[bool] = []

    def build(_: Path) -> BuildSummary:
        built.append(True)
        return _build(cfg, out, seed, workers)

    config = {**cfg.model_dump(mode="json", exclude={"format"}), "seed": seed}
    manifest = ensure(out, Key("synth", config, {}, source_digest(__name__)), build)
    counts = manifest.counts
    return SynthReport(
        counts["studies"], counts["slices"], len(manifest.files), manifest.content, reused=not built
    )


def _build(cfg: SynthConfig, out: Path, seed: int, workers: int) -> BuildSummary:
    """Write every study and the tables."""
    train, test = plan_set(cfg, seed)
    written = _write_all([*train, *test], out, workers)
    _write_tables(cfg, out, seed, written[: len(train)], written[len(train) :])
    digests = {path: digest for study in written for path, digest in study.digests}
    counts = {"studies": len(written), "slices": sum(len(study.labels) for study in written)}
    return BuildSummary(counts, {}, digests=digests)


def write_study(task: StudyTask, out: Path) -> _Written:
    """Draw, render and write one study below the root of the set."""
    made = make_study(task)
    hu, scan, ids = made.study.hu, made.study.scan, made.ids
    names = [f"{task.split}/{image}.dcm" for image in ids.images]
    journal_names(out, names)
    digests = []
    for i, name in enumerate(names):
        content = slice_bytes(hu[i], scan, ids, i, made.style, cut=task.cut and i == len(hu) // 2)
        _write_same(out / name, content)
        digests.append((name, blake3(content).hexdigest()))
    return _Written(made.labels, made.scanner(), digests)


def _write_same(path: Path, content: bytes) -> None:
    """Write an image; one that is there already must have the same bytes.

    Raises:
        UsageError: A file of that name has other content.
    """
    if not path.exists():
        write_bytes(path, content, sync=False)
    elif path.read_bytes() != content:
        raise UsageError(f"{path}: is there with other content; move it, or choose another --out")


def _write_all(tasks: list[StudyTask], out: Path, workers: int) -> list[_Written]:
    """Write all studies, in order of the tasks.

    Raises:
        EnvironmentFaultError: A worker process died, twice, of one study.
    """
    written = []
    with progress("synth", len(tasks)) as advance:
        for done in parallel_map(functools.partial(write_study, out=out), tasks, workers):
            if isinstance(done, WorkerDied):
                raise EnvironmentFaultError("synth: a worker process died; free memory, or use workers=1")
            written.append(done)
            advance(1)
    return written


def _write_tables(
    cfg: SynthConfig, out: Path, seed: int, train: list[_Written], test: list[_Written]
) -> None:
    """Write the CSVs."""
    rng = np.random.default_rng([seed, 4])
    known = [row for study in train for row in study.labels]
    known = [known[int(i)] for i in rng.permutation(len(known))]
    twice = known[:DUPLICATED] if cfg.damage else []
    hidden = sorted(row for study in test for row in study.labels)
    tables = {
        "stage_2_train.csv": _long([*known, *twice]),
        "stage_2_sample_submission.csv": _long((image, (0.5,) * len(CLASSES)) for image, _ in hidden),
        "phantom_test_labels.csv": _long(hidden),
    }
    for name, lines in tables.items():
        write_text(out / name, "".join(lines))
    if cfg.scanners != "standard":
        write_text(out / SCANNERS, scanner_table(study.scanner for study in [*train, *test]))


def scanner_table(rows: Iterable[dict[str, Any]]) -> str:
    """The text of ``phantom_scanners.csv``: one row per study, as ``MadeStudy.scanner`` gives it."""
    return pl.DataFrame(sorted(rows, key=lambda row: str(row["study"]))).write_csv()


def _long(rows: Iterable[tuple[str, tuple[float, ...]]]) -> Iterator[str]:
    """Lines of the competition's long CSV."""
    yield "ID,Label\n"
    for image, labels in rows:
        for name, label in zip(CLASSES, labels, strict=True):
            yield f"{image}_{name},{label}\n"
