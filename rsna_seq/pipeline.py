"""The corridor, in order: from DICOM files to a scored submission.

==============  ==========================================================================
``1_index``     headers to a table: one row a slice, ordered, labelled, in folds
``2_cache``     pixels to HU, decoded once, cropped to the head
``3_embed``     a CNN over neighbouring slices: a vector and six logits a slice, out of fold
``4_sequence``  a GRU over the whole study
``5_stack``     boosted trees over both models' logits
``6_evaluate``  the official metric, the ladder, the report
``7_predict``   the competition's test images, answered
==============  ==========================================================================
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from rsna_seq.config import Config
from rsna_seq.console import say
from rsna_seq.datasets.rsna2019.layout import find_layout
from rsna_seq.store.outputs import MANIFEST

At = Mapping[str, Path]
"""The folder of each stage."""


def _index(cfg: Config, at: At, rebuild: bool) -> None:
    from rsna_seq.stages import index

    index.run(
        cfg.index,
        cfg.data,
        at["index"],
        seed=cfg.seed,
        workers=workers_of(cfg),
        limit=cfg.limit,
        rebuild=rebuild,
    )


def _cache(cfg: Config, at: At, rebuild: bool) -> None:
    from rsna_seq.stages import cache

    cache.run(
        cfg.cache,
        at["index"],
        cfg.data.root,
        at["cache"],
        workers=workers_of(cfg),
        limit=cfg.limit,
        rebuild=rebuild,
    )


def _embed(cfg: Config, at: At, rebuild: bool) -> None:
    from rsna_seq.stages import embed

    embed.run(
        cfg.embed,
        at["cache"],
        at["embed"],
        seed=cfg.seed,
        device=cfg.device,
        workers=workers_of(cfg),
        limit=cfg.limit,
        rebuild=rebuild,
    )


def _sequence(cfg: Config, at: At, rebuild: bool) -> None:
    from rsna_seq.stages import sequence

    sequence.run(
        cfg.sequence,
        at["cache"],
        at["embed"],
        at["sequence"],
        seed=cfg.seed,
        device=cfg.device,
        rebuild=rebuild,
    )


def _stack(cfg: Config, at: At, rebuild: bool) -> None:
    from rsna_seq.stages import stack

    stack.run(
        cfg.stack, at["cache"], at["embed"], at["sequence"], at["stack"], seed=cfg.seed, rebuild=rebuild
    )


def _evaluate(cfg: Config, at: At, rebuild: bool) -> None:
    from rsna_seq.stages import evaluate

    evaluate.run(cfg.evaluate, at["evaluate"].parent, at["evaluate"], seed=cfg.seed, rebuild=rebuild)


_WALK: Mapping[str, Callable[[Config, At, bool], None]] = {
    "index": _index,
    "cache": _cache,
    "embed": _embed,
    "sequence": _sequence,
    "stack": _stack,
    "evaluate": _evaluate,
}

STAGES = tuple(_WALK)
"""The stages that a run walks, in order; ``predict`` follows where there are test images."""


def workers_of(cfg: Config) -> int:
    """Worker processes: as the config says, or one a core."""
    return cfg.workers or os.cpu_count() or 1


def folder_of(run: Path, stage: str) -> Path:
    """The folder of a stage in a run, such as ``runs/NAME/3_embed``."""
    return run / f"{(*STAGES, 'predict').index(stage) + 1}_{stage}"


def run_stage(stage: str, cfg: Config, run: Path, *, rebuild: bool = False) -> None:
    """Run one stage on what the stages before it left in the run's folder.

    Args:
        stage: One of STAGES.
        cfg: The resolved config.
        run: The run's folder.
        rebuild: Make the stage anew, even where it is up to date or learned.

    Raises:
        RsnaSeqError: As the stage's own ``run`` says.
    """
    if stage not in _WALK:
        raise ValueError(f"no stage is called {stage!r}")
    _WALK[stage](cfg, {name: folder_of(run, name) for name in STAGES}, rebuild)


def run_all(cfg: Config, run: Path, *, rebuild: bool = False) -> None:
    """Walk the corridor, and answer the sample submission where the data has test images.

    Args:
        cfg: The resolved config.
        run: The run's folder.
        rebuild: Make every stage anew.
    """
    for stage in STAGES:
        run_stage(stage, cfg, run, rebuild=rebuild)
        if not (folder_of(run, stage) / MANIFEST).is_file():
            return  # other jobs train the folds that are missing
    layout = find_layout(cfg.data.root, cfg.data.stage)
    if layout.test is not None:
        # a series that is asked for is one of the training studies: `index` has found it there
        unseen = cfg.model_copy(update={"index": cfg.index.model_copy(update={"series": None})})
        out = folder_of(run, "predict")
        predict([layout.test], [run], out, unseen, sample=layout.sample, rebuild=rebuild)


def predict(
    folders: list[Path],
    runs: list[Path],
    out: Path,
    cfg: Config,
    *,
    sample: Path | None = None,
    rebuild: bool = False,
) -> None:
    """Score the studies below some folders with finished runs.

    Args:
        folders: Folders of DICOM studies.
        runs: Folders of finished runs, averaged.
        out: Receives the tables and the report.
        cfg: The resolved config.
        sample: The competition's sample submission, to be answered.
        rebuild: Predict anew what is there.
    """
    from rsna_seq.stages.predict import run as stage

    stage.run(
        cfg.predict,
        folders,
        runs,
        out,
        indexing=cfg.index,
        sample=sample,
        device=cfg.device,
        workers=workers_of(cfg),
        limit=cfg.limit,
        rebuild=rebuild,
    )


def demo(cfg: Config, out: Path, *, rebuild: bool = False) -> None:
    """Phantoms, the whole corridor on them, and a prediction for phantoms that it never saw.

    Args:
        cfg: The resolved config; its data root is replaced by the phantoms.
        out: Everything is written below this folder.
        rebuild: Make everything anew but the phantoms.
    """
    from rsna_seq.datasets.rsna2019.submission import score_answer
    from rsna_seq.tools import synth

    workers = workers_of(cfg)
    seen, unseen = out / "phantoms", out / "unseen_phantoms"
    synth.run(cfg.synth, seen, seed=cfg.seed, workers=workers)
    others = cfg.synth.model_copy(update={"studies": cfg.synth.test_studies, "test_studies": 0})
    synth.run(others, unseen, seed=cfg.seed + 1, workers=workers)
    run_all(cfg.model_copy(update={"data": cfg.data.model_copy(update={"root": seen})}), out, rebuild=rebuild)
    answer = out / "8_unseen"
    predict([unseen / f"stage_{cfg.data.stage}_train"], [out], answer, cfg, rebuild=rebuild)
    loss = score_answer(answer / "slices.csv", unseen / f"stage_{cfg.data.stage}_train.csv", cfg.seed)
    say("demo", f"log loss on phantoms of another seed: {loss.value:.4f} ({loss.low:.4f} to {loss.high:.4f})")
    say("demo", f"the report: {folder_of(out, 'evaluate') / 'report.html'}")
    say("demo", f"the unseen studies, slice by slice: {answer / 'report.html'}")
