"""Phantom studies on disk, in the layout in which the competition's set is downloaded.

1. Plan both splits as a whole: patients, and which study shows which bleeds.
2. Draw, render and write each study on its own, in as many processes as asked; bytes depend on the seed only.
3. Write the label CSV, the sample submission and the truth of the test images, and ``phantom.json`` last.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rsna_seq.artifacts import atomic_path, locked, write_json
from rsna_seq.config import SynthConfig
from rsna_seq.console import progress, say
from rsna_seq.errors import UsageError
from rsna_seq.labels import CLASSES
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
from rsna_seq.provenance import source_digest
from rsna_seq.workers import spawn_context

SEAL = "phantom.json"
DUPLICATED = 4
"""Training images whose six rows stand in the CSV twice."""
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
    seconds: float


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
    """What a study left."""

    labels: tuple[tuple[str, tuple[int, ...]], ...]
    """Id and six labels of each image."""
    digests: tuple[tuple[str, str], ...]
    """Path below the root, and digest, of each file."""


def run(cfg: SynthConfig, out: Path, *, seed: int, workers: int) -> SynthReport:
    """Write a phantom data set, or find it already there.

    Args:
        cfg: How many studies of which kind.
        out: Root of the data set.
        seed: The same seed gives the same bytes, however many workers there are.
        workers: Processes; 1 stays in this one.

    Raises:
        UsageError: The folder holds a data set that is no phantom.
    """
    start = time.monotonic()
    key = {"config": cfg.model_dump(mode="json"), "seed": seed, "source": source_digest(__name__)}
    with locked(out):
        found = _found(out, key)
        if found is not None:
            say("synth", f"{found['studies']:,} studies up to date")
            return _report(found, True, start)
        _clear(out)
        write_json(out / SEAL, {"unfinished": True})
        train, test = _tasks(cfg, out, seed)
        written = _write_all([*train, *test], workers)
        files = _write_tables(cfg, out, seed, written[: len(train)], written[len(train) :])
        counts = {
            "studies": len(written),
            "slices": sum(len(w.labels) for w in written),
            "files": len(files),
            "digest": hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest(),
        }
        write_json(out / SEAL, key | {"content": counts})
    report = _report(counts, False, start)
    say("synth", f"{report.studies:,} studies, {report.slices:,} slices in {report.seconds:.1f} s")
    return report


def _report(content: dict[str, Any], reused: bool, start: float) -> SynthReport:
    """The report of a finished set."""
    return SynthReport(**content, reused=reused, seconds=time.monotonic() - start)


def write_study(task: _Task) -> _Written:
    """Draw, render and write one study."""
    cv2.setNumThreads(1)
    patient = draw_patient(np.random.default_rng([task.seed, 1, task.plan.patient]))
    rng = np.random.default_rng([task.seed, 2, task.study])
    study = _render(rng, patient, draw_scan(rng, patient), task)
    offset = float(np.random.default_rng([task.seed, 3]).random())
    style = draw_style(rng, task.study, offset)
    ids = make_ids(task.seed, task.plan.patient, task.study, len(study.hu))
    task.folder.mkdir(parents=True, exist_ok=True)
    digests = []
    for i, image in enumerate(ids.images):
        content = slice_bytes(
            study.hu[i], study.scan, ids, i, style, cut=task.cut and i == len(study.hu) // 2
        )
        (task.folder / f"{image}.dcm").write_bytes(content)
        digests.append((f"{task.folder.name}/{image}.dcm", hashlib.sha256(content).hexdigest()))
    labels = tuple(
        (image, tuple(int(v) for v in row)) for image, row in zip(ids.images, study.labels, strict=True)
    )
    return _Written(labels, tuple(digests))


def _render(rng: np.random.Generator, patient: Patient, scan: Scan, task: _Task) -> Study:
    """Render a study; a planned bleed that no slice shows is drawn anew and larger."""
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
    """Write all studies, in order of the tasks whatever finishes first."""
    with progress("synth", len(tasks)) as advance:
        if workers <= 1 or len(tasks) <= 1:
            written = []
            for task in tasks:
                written.append(write_study(task))
                advance(1)
            return written
        with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=spawn_context()) as pool:
            futures = [pool.submit(write_study, task) for task in tasks]
            try:
                for done in as_completed(futures):
                    done.result()
                    advance(1)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            return [future.result() for future in futures]


def _write_tables(
    cfg: SynthConfig, out: Path, seed: int, train: list[_Written], test: list[_Written]
) -> dict[str, str]:
    """Write the CSVs; return the digest of every file by its path."""
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
    files = {path: digest for study in [*train, *test] for path, digest in study.digests}
    for name, lines in tables.items():
        text = "".join(lines)
        with atomic_path(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        files[name] = hashlib.sha256(text.encode()).hexdigest()
    return files


def _long(rows: Iterable[tuple[str, tuple[float, ...]]]) -> Iterator[str]:
    """Lines of the competition's long CSV."""
    yield "ID,Label\n"
    for image, labels in rows:
        for name, label in zip(CLASSES, labels, strict=True):
            yield f"{image}_{name},{label}\n"


def _found(out: Path, key: dict[str, object]) -> dict[str, Any] | None:
    """The counts of a finished set of the same key, all of whose files are there."""
    try:
        seal = json.loads((out / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if {name: seal.get(name) for name in key} != key:
        return None
    content: dict[str, Any] = seal["content"]
    there = sum(1 for pattern in ("stage_2_*/ID_*.dcm", "*.csv") for _ in out.glob(pattern))
    return content if there == content["files"] else None


def _clear(out: Path) -> None:
    """Remove an older or unfinished phantom set, and nothing else."""
    images = [path for name in ("stage_2_train", "stage_2_test") for path in (out / name).glob("*.dcm")]
    if (images or (out / "stage_2_train.csv").exists()) and not (out / SEAL).exists():
        raise UsageError(f"{out}: holds a data set that is no phantom; choose another folder")
    (out / SEAL).unlink(missing_ok=True)
    for path in [
        *images,
        *(out / n for n in ("stage_2_train.csv", "stage_2_sample_submission.csv", "phantom_test_labels.csv")),
    ]:
        path.unlink(missing_ok=True)
