"""Is end-to-end training of CNN and GRU better than two stages with out-of-fold embeddings?

    python benchmarks/bench_joint.py [--out runs/bench_joint] [--seeds 3] [--config FILE] [key=value ...]

1. Generate phantoms with the config's seed, then run ``index`` and ``cache`` once.
2. For each seed, train two runs that spend the same compute on the CNN:
   ``two_stages``: ``embed`` for E + F / 3 + J epochs, then ``sequence`` and ``stack``;
   ``joint``: ``embed`` for E epochs, then ``joint`` (F epochs with frozen CNN, J epochs of everything),
   ``sequence`` on the short ``embed`` for comparison, and ``stack`` with all of them.
   A slice in training costs a forward and a backward pass (3 units), a slice through a frozen CNN one. The
   GRU of ``sequence`` costs seconds and is not counted. CPU seconds are measured as well.
3. Compare the official metric slice by slice: paired differences with 95 % intervals over patients, per seed
   and for the mean over the seeds. The last line of standard output is all figures as JSON.

E, F and J are ``embed.epochs``, ``joint.frozen_epochs`` (a multiple of three) and ``joint.epochs``. Finished
artefacts are reused, so an interrupted benchmark goes on where it stopped.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rsna_seq.config import Config, load_config
from rsna_seq.context import Context
from rsna_seq.errors import RsnaSeqError, UsageError
from rsna_seq.pipeline import run_stage
from rsna_seq.scoring.baselines import read_models, scopes
from rsna_seq.scoring.bootstrap import Bootstrap
from rsna_seq.scoring.metric import Interval, slice_losses
from rsna_seq.store.artifacts import read_manifest
from rsna_seq.store.files import write_json
from rsna_seq.store.provenance import commit, package_version
from rsna_seq.store.run_folder import STAGES, RunFolder
from rsna_seq.tools import synth

Floats = NDArray[np.float64]
DEFAULTS = (
    "synth.studies=60",
    "synth.test_studies=0",
    "synth.matrix=192",
    "synth.rare_share=0.1",
    "synth.damage=false",
    "seed=21",
    "index.folds=2",
    "index.cross_folds=4",
    "cache.size=96",
    "embed.epochs=1",
    "sequence.seeds=1",
    "joint.frozen_epochs=3",
    "joint.epochs=2",
    "joint.cnn_lr=0.3",
    "joint.batch_size=1",
)
"""Differences to configs/small.yaml."""
FINAL = "final"
"""The last model of a run: the stack, calibrated where that helps."""
WAYS = {
    "CNN, long": ("two_stages", "cnn"),
    "two stages": ("two_stages", "sequence"),
    "two stages, stack": ("two_stages", FINAL),
    "CNN, short": ("joint", "cnn"),
    "two stages, short CNN": ("joint", "sequence"),
    "joint": ("joint", "joint"),
    "joint, stack": ("joint", FINAL),
}
"""What is compared: the run, and the model in it."""
PAIRS = (
    ("joint", "two stages"),
    ("joint", "two stages, short CNN"),
    ("joint", "CNN, short"),
    ("joint, stack", "two stages, stack"),
)
"""Differences that are reported: the first minus the second."""
_SEED_STEP = 100
_TRAINED, _FROZEN = 3, 1
"""Units of compute of a slice: forward and backward pass, and forward pass alone."""


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; returns 0, or the code of the error."""
    options = _parse(argv)
    start = time.monotonic()
    try:
        cfg = load_config(options.config or "small", [*DEFAULTS, *options.overrides])
        long = two_stages(cfg)
        losses, patients, clock = [], None, []
        made = prepare(cfg, options.out)
        cfg, long = (c.model_copy(update={"data": made}) for c in (cfg, long))
        for k in range(options.seeds):
            clock.append(train(cfg, long, options.out, k))
            found, patients = read_losses(cfg, options.out, k)
            losses.append(found)
    except RsnaSeqError as error:
        print(f"bench_joint: {error}", file=sys.stderr)
        return error.exit_code
    assert patients is not None
    result = figures(losses, patients, cfg) | circumstances(cfg, long, options, clock)
    result["seconds"] = round(time.monotonic() - start, 1)
    show(result)
    write_json(options.out / "joint.json", result)
    print(json.dumps(result), flush=True)
    return 0


def two_stages(cfg: Config) -> Config:
    """Return the config of the run without ``joint``, whose ``embed`` spends the same compute.

    Raises:
        UsageError: The frozen epochs are not worth a whole number of training epochs.
    """
    frozen, rest = divmod(cfg.joint.frozen_epochs * _FROZEN, _TRAINED)
    if rest:
        raise UsageError(
            f"joint.frozen_epochs={cfg.joint.frozen_epochs}: must be a multiple of {_TRAINED // _FROZEN}, "
            "because so many frozen epochs cost as much as an epoch of training"
        )
    epochs = cfg.embed.epochs + frozen + cfg.joint.epochs
    return cfg.model_copy(update={"embed": cfg.embed.model_copy(update={"epochs": epochs})})


def prepare(cfg: Config, out: Path) -> Any:
    """Generate phantoms, index and cache them; return the data section of the config."""
    root = out / "phantoms"
    synth.run(cfg.synth, root, seed=cfg.seed, workers=Context.of(cfg).workers)
    data = cfg.data.model_copy(update={"root": root})
    for stage in ("index", "cache"):
        run_stage(stage, cfg.model_copy(update={"data": data}), out / "data")
    return data


def train(cfg: Config, long: Config, out: Path, k: int) -> dict[str, float]:
    """Train both runs of seed number ``k``; return the CPU seconds of every stage.

    Those of a stage that was interrupted are those since it was resumed.
    """
    seed, clock = {"seed": cfg.seed + _SEED_STEP * k}, {}
    plans = {
        "two_stages": (long, ("embed", "sequence", "stack")),
        "joint": (cfg, ("embed", "sequence", "joint", "stack")),
    }
    for name, (plan, stages) in plans.items():
        run = out / f"seed{k}" / name
        run.mkdir(parents=True, exist_ok=True)
        for folder in ("1_index", "2_cache"):
            if not (run / folder).exists():
                (run / folder).symlink_to(os.path.relpath(out / "data" / folder, run), True)
        for stage in stages:
            done, start = RunFolder(run).is_finished(stage), time.process_time()
            run_stage(stage, plan.model_copy(update=seed), run)
            file = run / f"{stage}_cpu_seconds.json"
            if not done:
                write_json(file, round(time.process_time() - start, 1))
            clock[f"{name} {stage}"] = json.loads(file.read_text(encoding="utf-8"))
    return clock


def read_losses(cfg: Config, out: Path, k: int) -> tuple[dict[str, Floats], NDArray[np.str_]]:
    """Return the official metric of every slice by way, out of fold, and the patients of the slices."""
    losses: dict[str, Floats] = {}
    patients = None
    models = {}
    for run in ("two_stages", "joint"):
        folder = RunFolder(out / f"seed{k}" / run)
        finished = folder.open(*(s for s in STAGES if folder.is_finished(s)))
        scope = dict(scopes(*read_models(finished, cfg.evaluate.smooth_mm)))["out_of_fold"]
        models[run], patients = scope, scope.patients
    for way, (run, model) in WAYS.items():
        found = models[run].models
        p = list(found.values())[-1] if model == FINAL else found[model]
        losses[way] = slice_losses(models[run].labels, p)
    assert patients is not None
    return losses, patients


def figures(losses: list[dict[str, Floats]], patients: NDArray[np.str_], cfg: Config) -> dict[str, Any]:
    """Compute log losses and paired differences, per seed and for the mean over the seeds."""
    draws = Bootstrap(patients, cfg.evaluate.bootstrap, cfg.seed)
    mean = {way: np.mean([seed[way] for seed in losses], axis=0) for way in WAYS}
    return {
        "benchmark": "joint",
        "counts": {"slices": len(patients), "patients": len(draws.names)},
        "log_loss": {way: _plain(draws.mean(values)) for way, values in mean.items()},
        "log_loss_by_seed": {way: [round(float(s[way].mean()), 6) for s in losses] for way in WAYS},
        "differences": {f"{a} - {b}": _plain(draws.mean(mean[a] - mean[b])) for a, b in PAIRS},
        "differences_by_seed": {
            f"{a} - {b}": [_plain(draws.mean(s[a] - s[b])) for s in losses] for a, b in PAIRS
        },
    }


def circumstances(
    cfg: Config, long: Config, options: argparse.Namespace, clock: list[dict[str, float]]
) -> dict[str, Any]:
    """Return compute, settings, version and device."""
    units = {
        "two_stages": _TRAINED * long.embed.epochs,
        "joint": _TRAINED * (cfg.embed.epochs + cfg.joint.epochs) + _FROZEN * cfg.joint.frozen_epochs,
    }
    run = RunFolder(options.out / "seed0" / "joint")
    return {
        "seeds": options.seeds,
        "passes_per_slice": units,
        "cpu_seconds": clock,
        "config": str(options.config or "small"),
        "overrides": [*DEFAULTS, *options.overrides],
        "device": read_manifest(run["joint"]).device,
        "version": package_version(),
        "commit": commit(),
    }


def show(result: dict[str, Any]) -> None:
    """Print the figures as tables."""
    console = Console(width=130, highlight=False)
    counts = ", ".join(f"{n:,} {what}" for what, n in result["counts"].items())
    for title, mean, seeds in (
        (f"log loss out of fold, {counts}", "log_loss", "log_loss_by_seed"),
        ("paired differences", "differences", "differences_by_seed"),
    ):
        table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        for column in ("", "mean over the seeds, 95 % interval over patients", "by seed"):
            table.add_column(column, no_wrap=True)
        for name, row in result[mean].items():
            each = [s["value"] if isinstance(s, dict) else s for s in result[seeds][name]]
            table.add_row(
                name,
                f"{row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]",
                ", ".join(f"{value:.4f}" for value in each),
            )
        console.print(table)
    console.print(f"passes per slice: {result['passes_per_slice']}")


def _plain(interval: Interval) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in interval._asdict().items()}


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, help="YAML file, or name of a shipped config; default small")
    parser.add_argument("--out", type=Path, default=Path("runs/bench_joint"), help="output folder")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of config values")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
