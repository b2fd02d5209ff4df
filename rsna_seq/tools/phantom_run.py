"""The outputs of ``index`` and ``cache`` from phantoms, without DICOM files (``synth.format=hu``).

1. Each study is rendered and prepared as ``cache`` prepares a decoded study. Headers, labels and pixels wait
   in ``0_synth``; an interrupted command continues with the studies that are missing there.
2. :func:`run_index`: the headers that the DICOM files would have, to the same tables, labels and folds.
3. :func:`run_cache`: the pixels to shards; then ``0_synth`` is deleted.

The HU pass through the stored values of each study's pixel layout (:mod:`rsna_seq.phantom.writer`), so they
equal those that ``cache`` reads from the DICOM files of the same seed, in every layout. Tables differ from
those of DICOM files only in ``file_size``, ``file_mtime_ns`` and ``pixel_offset``: no files exist. No file is
cut short (``synth.damage``), and test studies are not rendered.
"""

import functools
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydicom.config import disable_value_validation

from rsna_seq.config import Config, IndexConfig
from rsna_seq.console import progress
from rsna_seq.context import Context
from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.imaging.headers.fields import HEADERS
from rsna_seq.imaging.headers.frame import header_of
from rsna_seq.imaging.headers.single import texts
from rsna_seq.imaging.pixels import hu_of
from rsna_seq.imaging.wrap import Wrap, judge, may_be_wrapped
from rsna_seq.labels import CLASSES
from rsna_seq.parallel.local import WorkerDied, parallel_map
from rsna_seq.phantom.studies import MadeStudy, StudyTask, make_study, plan_set
from rsna_seq.phantom.writer import encode, slice_header
from rsna_seq.stages import cache, index
from rsna_seq.store.array_file import array_writer
from rsna_seq.store.artifacts import BuildSummary, Key, Manifest, open_artifact
from rsna_seq.store.builds import discard, ensure
from rsna_seq.store.files import write_json, write_text
from rsna_seq.store.outputs import journal_names
from rsna_seq.store.provenance import digest_file, source_digest
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.store.slabs import DecodedPass
from rsna_seq.store.tables import SLICES, from_rows, read_table
from rsna_seq.tools.synth import SCANNERS, scanner_table

_FOLDER = "0_synth"
_TABLE_FIELDS = ("slices", "hu")
"""Fields of DecodedPass that are not in the JSON file of a study."""
Rows = list[dict[str, Any]]


def run_index(cfg: Config, ctx: Context, run: RunFolder) -> Manifest:
    """Write ``1_index`` of phantoms.

    Args:
        cfg: Phantoms, folds, and the cache whose pixels are rendered at the same time.
        ctx: Seed, workers, limit.
        run: Receives ``1_index``, and ``0_synth`` until ``2_cache`` is written.

    Raises:
        EnvironmentFaultError: A worker process died twice of one study, or the disk is full.
    """

    def build(folder: Path) -> BuildSummary:
        waiting = _render_all(cfg, ctx, run)
        notes = [_notes(waiting, task.name) for task in _tasks(cfg, ctx)]
        headers = from_rows([row for note in notes for row in note["headers"]], HEADERS)
        scanned = index.arrange(headers, [], waiting, cfg.index)
        labels = [row for note in notes for row in note["labels"]]
        truth = pl.DataFrame(labels, _TRUTH, orient="row")
        if cfg.synth.scanners != "standard":
            write_text(folder / SCANNERS, scanner_table(note["scanner"] for note in notes))
        return index.write(index.with_labels(scanned, truth, cfg.index, ctx.seed), folder, phantoms=True)

    config = {**cfg.index.model_dump(mode="json"), "synth": _phantoms(cfg), **ctx.key}
    key = Key("index", config, {}, source_digest(__name__))
    return ensure(run["index"], key, build, rebuild=ctx.rebuild)


def run_cache(cfg: Config, ctx: Context, run: RunFolder) -> Manifest:
    """Write ``2_cache`` of phantoms, and delete ``0_synth``.

    Args:
        cfg: Phantoms, cache.
        ctx: Seed, workers, limit.
        run: Has ``1_index``; receives ``2_cache``.

    Raises:
        EnvironmentFaultError: A worker process died twice of one study, or the disk is too small.
    """
    indexed = open_artifact(run["index"])
    config = {**cfg.cache.model_dump(mode="json"), "synth": _phantoms(cfg), **ctx.key}
    key = Key("cache", config, {"index": indexed.manifest.content}, source_digest(__name__))

    def build(folder: Path) -> BuildSummary:
        waiting = _render_all(cfg, ctx, run)
        slices = read_table(indexed.file("slices.parquet"), SLICES)
        decode = functools.partial(_read_pass, folder=waiting)
        return cache.build_shards(cfg.cache, slices, decode, folder, 1, json.dumps(key.parts()))

    manifest = ensure(run["cache"], key, build, rebuild=ctx.rebuild, piecewise=True)
    discard(run.path / _FOLDER, "synth")
    return manifest


_TRUTH: dict[str, pl.DataType] = {"slice": pl.String(), **dict.fromkeys(CLASSES, pl.Int8())}


def _phantoms(cfg: Config) -> dict[str, Any]:
    """The part of the config that the labelled phantoms depend on."""
    return cfg.synth.model_dump(mode="json", exclude={"format", "damage", "test_studies"})


def _tasks(cfg: Config, ctx: Context) -> list[StudyTask]:
    """The labelled studies by StudyInstanceUID, up to the limit."""
    tasks, _ = plan_set(cfg.synth, ctx.seed)
    return sorted(tasks, key=lambda task: task.name)[: ctx.limit]


def _render_all(cfg: Config, ctx: Context, run: RunFolder) -> Path:
    """Render all studies into ``0_synth``, or find them there; return the folder."""
    out, tasks = run.path / _FOLDER, _tasks(cfg, ctx)

    def build(folder: Path) -> BuildSummary:
        digests: dict[str, str] = {}
        slices = 0
        work = functools.partial(_render, folder=folder, cfg=cfg)
        with progress("synth", len(tasks)) as advance:
            for done in parallel_map(work, tasks, ctx.workers):
                if isinstance(done, WorkerDied):
                    raise EnvironmentFaultError("synth: a worker process died; free memory, or use workers=1")
                digests |= done[1]
                slices += done[0]
                advance(1)
        return BuildSummary({"studies": len(tasks), "slices": slices}, {}, digests=digests)

    config = {**_phantoms(cfg), **ctx.key, "cache": cfg.cache.model_dump(mode="json")}
    ensure(out, Key("synth", config, {}, source_digest(__name__)), build)
    return out


def _render(task: StudyTask, folder: Path, cfg: Config) -> tuple[int, dict[str, str]]:
    """Render a study and write its two files, the JSON file last; a study that is there stays.

    Returns:
        Number of slices, and the digests of the files by name.
    """
    files = [folder / f"{task.name}.npy", folder / f"{task.name}.json"]
    notes = _finished(*files)
    if notes is None:
        journal_names(folder, [file.name for file in files])
        made = make_study(task)
        headers, pixels, unwrapped = _as_read(made)
        names = {image: i for i, image in enumerate(made.ids.images)}
        rows = [row | {"file": f"{task.split}/{row['slice']}.dcm", "file_size": 0} for row in headers]
        rows = [row | {"file_mtime_ns": 0} for row in rows]
        slices = index.arrange(from_rows(rows, HEADERS), [], folder, IndexConfig()).slices
        passes = []
        for part in cache.split_by_pass(slices):
            at = [names[image] for image in part["slice"]]
            ready, wraps = [pixels[i] for i in at], [unwrapped[i] for i in at]
            passes.append(cache.decoded_pass(part, list(range(len(at))), ready, wraps, [], cfg.cache))
        notes = {"headers": rows, "labels": [[image, *row] for image, row in made.labels]}
        _write(passes, notes | {"scanner": made.scanner()}, *files, size=cfg.cache.size)
    return len(notes["headers"]), {file.name: digest_file(file) for file in files}


def _as_read(made: MadeStudy) -> tuple[Rows, list[NDArray[np.int16]], list[bool]]:
    """Headers as rows of COLUMNS, HU, and corrected wraps, as they would be read from DICOM files."""
    study = made.study
    headers: Rows = []
    stored: list[NDArray[np.integer]] = []
    for i, hu in enumerate(study.hu):
        with disable_value_validation():  # the ids are not UIDs, as in the competition
            elements = slice_header(study.scan, made.ids, i, made.style, len(hu))
        syntax = str(elements.file_meta.TransferSyntaxUID)
        headers.append(header_of(texts(elements), syntax, assume_hu=False))
        stored.append(encode(hu, made.style, padded=study.scan.padded))
    first: Any = headers[0]
    rescale = {"slope": first["slope"], "intercept": first["intercept"]}
    wraps = may_be_wrapped(first["bits_stored"], signed=first["signed"], **rescale) and any(
        judge(values, padding=first["padding"], **rescale) is Wrap.PROVEN for values in stored
    )
    read = [hu_of(values, first, wrapped_series=wraps) for values in stored]
    return headers, [hu for hu, _ in read], [wrapped for _, wrapped in read]


def _write(passes: list[DecodedPass], notes: dict[str, Any], pixels: Path, text: Path, *, size: int) -> None:
    """Write the slabs of all passes, then everything else as JSON with the digest of the slabs."""
    about: dict[str, Any] = {}
    with array_writer(pixels, "<i2", (size, size), sync=False) as array:
        for part in passes:
            assert part.hu is not None
            kept = {f.name: getattr(part, f.name) for f in fields(part) if f.name not in _TABLE_FIELDS}
            kept["numbers"] = part.numbers.tolist()
            rows = [array.rows, array.rows + len(part.hu)]
            about[str(part.slices["pass"][0])] = {
                "fields": kept, "rows": rows, "slices": part.slices["slice"].to_list()
            }  # fmt: skip
            array.append(part.hu)
    write_json(text, notes | {"passes": about, "digest": digest_file(pixels)})


def _finished(pixels: Path, text: Path) -> dict[str, Any] | None:
    """The JSON file of a study; None if one of its files is absent or damaged."""
    try:
        notes: dict[str, Any] = json.loads(text.read_text(encoding="utf-8"))
        return notes if notes["digest"] == digest_file(pixels) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _notes(folder: Path, study: str) -> dict[str, Any]:
    """The JSON file of a rendered study."""
    notes: dict[str, Any] = json.loads((folder / f"{study}.json").read_text(encoding="utf-8"))
    return notes


def _read_pass(slices: pl.DataFrame, folder: Path) -> DecodedPass:
    """One pass of a rendered study, as the cache decodes it.

    Args:
        slices: Rows of SLICES of one study and pass, in order.
        folder: ``0_synth``.
    """
    study, number = slices.select("study", "pass").row(0)
    about = _notes(folder, study)["passes"][str(number)]
    assert about["slices"] == slices["slice"].to_list(), study
    first, last = about["rows"]
    hu = np.load(folder / f"{study}.npy", mmap_mode="r")[first:last]
    kept = about["fields"]
    kept |= {"numbers": np.array(kept["numbers"], dtype=np.int64), "square": tuple(kept["square"])}
    return DecodedPass(slices, hu=np.array(hu), **kept)
