"""Phantom studies on disk, in the layout in which the competition's set is downloaded.

1. Plan both splits as a whole: patients, and which study shows which bleeds.
2. Draw, render and write each study on its own, in as many processes as asked; bytes depend on the seed only.
3. Write the label CSV, the sample submission and the truth of the test images, and the manifest last.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from blake3 import blake3

from rsna_seq.config import SynthConfig
from rsna_seq.console import progress
from rsna_seq.errors import EnvironmentFaultError, UsageError
from rsna_seq.labels import CLASSES
from rsna_seq.parallel.local import WorkerDied, parallel_map
from rsna_seq.phantom import (
    KINDS,
    Bleed,
    Patient,
    Scan,
    Study,
    draw_bleed,
    draw_patient,
    draw_scan,
    render_study,
)
from rsna_seq.phantom.bleeds import draw_hygroma
from rsna_seq.phantom.prevalence import StudyPlan, plan_studies
from rsna_seq.phantom.writer import draw_style, make_ids, slice_bytes
from rsna_seq.store.artifacts import BuildSummary, Key
from rsna_seq.store.builds import ensure
from rsna_seq.store.files import write_bytes, write_text
from rsna_seq.store.outputs import journal_names
from rsna_seq.store.provenance import source_digest

DUPLICATED = 4
"""Training images whose six rows are in the CSV twice."""
_GROW = (1.0, 1.4, 1.9, 2.6, 3.5)
"""Sizes tried until each planned bleed is seen in some slice."""


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
class _Task:
    """One study to write."""

    folder: Path
    seed: int
    study: int
    """Index in the whole set, test studies after training ones."""
    plan: StudyPlan
    matrix: int
    cut: bool


@dataclass(frozen=True)
class _Written:
    """Labels and files of a study that was written."""

    labels: tuple[tuple[str, tuple[int, ...]], ...]
    """Id and six labels of each image."""
    digests: tuple[tuple[str, str], ...]
    """Path below the root, and BLAKE3, of each file."""


def run(cfg: SynthConfig, out: Path, *, seed: int, workers: int) -> SynthReport:
    """Write a phantom data set, or find it already there.

    Args:
        cfg: How many studies of which kind.
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

    config = {**cfg.model_dump(mode="json"), "seed": seed}
    manifest = ensure(out, Key("synth", config, {}, source_digest(__name__)), build)
    counts = manifest.counts
    return SynthReport(
        counts["studies"], counts["slices"], len(manifest.files), manifest.content, reused=not built
    )


def _build(cfg: SynthConfig, out: Path, seed: int, workers: int) -> BuildSummary:
    """Write every study and the tables."""
    train, test = _tasks(cfg, out, seed)
    written = _write_all([*train, *test], workers)
    _write_tables(cfg, out, seed, written[: len(train)], written[len(train) :])
    digests = {path: digest for study in written for path, digest in study.digests}
    counts = {"studies": len(written), "slices": sum(len(study.labels) for study in written)}
    return BuildSummary(counts, {}, digests=digests)


def write_study(task: _Task) -> _Written:
    """Draw, render and write one study."""
    cv2.setNumThreads(1)
    patient = draw_patient(np.random.default_rng([task.seed, 1, task.plan.patient]))
    rng = np.random.default_rng([task.seed, 2, task.study])
    study = _render(rng, patient, draw_scan(rng, patient), task)
    offset = float(np.random.default_rng([task.seed, 3]).random())
    style = draw_style(rng, task.study, offset)
    ids = make_ids(task.seed, task.plan.patient, task.study, len(study.hu))
    names = [f"{task.folder.name}/{image}.dcm" for image in ids.images]
    journal_names(task.folder.parent, names)
    digests = []
    for i, name in enumerate(names):
        content = slice_bytes(
            study.hu[i], study.scan, ids, i, style, cut=task.cut and i == len(study.hu) // 2
        )
        _write_same(task.folder.parent / name, content)
        digests.append((name, blake3(content).hexdigest()))
    labels = tuple(
        (image, tuple(int(v) for v in row)) for image, row in zip(ids.images, study.labels, strict=True)
    )
    return _Written(labels, tuple(digests))


def _write_same(path: Path, content: bytes) -> None:
    """Write an image; one that is there already must have the same bytes.

    Raises:
        UsageError: A file of that name has other content.
    """
    if not path.exists():
        write_bytes(path, content, sync=False)
    elif path.read_bytes() != content:
        raise UsageError(f"{path}: is there with other content; move it, or choose another --out")


def _render(rng: np.random.Generator, patient: Patient, scan: Scan, task: _Task) -> Study:
    """Render a study; a planned bleed that no slice shows is drawn again, larger."""
    hygroma: tuple[Bleed, ...] = ()
    if patient.hygroma:
        hygroma = (draw_hygroma(rng, patient.hygroma, patient.hygroma_side),)
    bleeds = {kind: draw_bleed(rng, kind) for kind in task.plan.kinds}
    for grow in _GROW[1:]:
        study = render_study(patient, scan, hygroma + sum(bleeds.values(), ()), task.matrix, rng)
        missing = [kind for kind in bleeds if not study.area[:, KINDS.index(kind)].any()]
        if not missing:
            return study
        bleeds |= {kind: draw_bleed(rng, kind, grow) for kind in missing}
    return study


def _tasks(cfg: SynthConfig, out: Path, seed: int) -> tuple[list[_Task], list[_Task]]:
    """The studies of both splits; patients of the test split are others."""
    rng = np.random.default_rng([seed, 0])
    splits: list[list[_Task]] = []
    study = patient = 0
    for name, count in (("stage_2_train", cfg.studies), ("stage_2_test", cfg.test_studies)):
        plans = plan_studies(rng, count, cfg.rare_share) if count else ()
        cut = int(rng.integers(count)) if cfg.damage and count else -1
        tasks = [
            _Task(out / name, seed, study + i, StudyPlan(patient + p.patient, p.kinds), cfg.matrix, i == cut)
            for i, p in enumerate(plans)
        ]
        splits.append(tasks)
        study += count
        patient += max((p.patient for p in plans), default=-1) + 1
    return splits[0], splits[1]


def _write_all(tasks: list[_Task], workers: int) -> list[_Written]:
    """Write all studies, in order of the tasks.

    Raises:
        EnvironmentFaultError: A worker process died, twice, of one study.
    """
    written = []
    with progress("synth", len(tasks)) as advance:
        for done in parallel_map(write_study, tasks, workers):
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


def _long(rows: Iterable[tuple[str, tuple[float, ...]]]) -> Iterator[str]:
    """Lines of the competition's long CSV."""
    yield "ID,Label\n"
    for image, labels in rows:
        for name, label in zip(CLASSES, labels, strict=True):
            yield f"{image}_{name},{label}\n"
