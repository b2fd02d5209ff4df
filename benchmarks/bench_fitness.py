"""Do the warnings of ``predict`` tell when not to believe it? Measured on phantoms of known truth.

    python benchmarks/bench_fitness.py [--run RUN] [--studies 40] [--out runs/fitness] [key=value ...]

1. Generate two sets of phantoms with the same patients and haemorrhages: standard scanners, and scanners
   outside their range (``synth.scanners=unseen``).
2. ``predict`` scores both, by default with the model in the package.
3. For each set: log loss with its 95 % interval over studies; the share of studies that are flagged
   (``unlike_training``) with its interval; the log loss of flagged and other studies. Over both sets:
   Spearman's rank correlation of a study's loss with ``novelty`` and with the spread of ``any`` over the
   networks.

The last line of standard output is all figures as JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rsna_seq import pipeline
from rsna_seq.arrays import Floats
from rsna_seq.config import Config, load_config
from rsna_seq.context import Context
from rsna_seq.datasets.rsna2019.label_csv import read_labels
from rsna_seq.datasets.rsna2019.submission import read_escaped
from rsna_seq.errors import RsnaSeqError
from rsna_seq.labels import CLASSES
from rsna_seq.scoring.bootstrap import Bootstrap
from rsna_seq.scoring.metric import Interval, slice_losses
from rsna_seq.store.files import write_json
from rsna_seq.store.provenance import commit
from rsna_seq.tools import synth

SETS = ("standard", "unseen")
_SAMPLES = 1000
_SEED = 9000
"""Seed of the phantoms; the model in the package was trained on others."""


def main(argv: list[str] | None = None) -> int:
    """Predict both sets, print the figures and the JSON line; the exit code is 2 or more after an error."""
    options = _parse(argv)
    start = time.monotonic()
    try:
        cfg = load_config(options.config, options.overrides)
        tables = {name: predicted(name, cfg, options) for name in SETS}
    except RsnaSeqError as error:
        print(f"bench_fitness: {error}", file=sys.stderr)
        return error.exit_code
    result: dict[str, Any] = {
        "benchmark": "fitness",
        "sets": {name: figures(table) for name, table in tables.items()},
        "rise": rise(*(per_study(tables[name]) for name in SETS)),
        "correlation": correlations(pl.concat([per_study(table) for table in tables.values()])),
        "run": str(options.run) if options.run else "the model in the package",
        "studies": options.studies,
        "commit": commit(),
        "seconds": round(time.monotonic() - start, 1),
    }
    print(text_of(result))
    write_json(options.out / "fitness.json", result)
    print(json.dumps(result), flush=True)
    return 0


def predicted(name: str, cfg: Config, options: argparse.Namespace) -> pl.DataFrame:
    """Generate and predict one set.

    Returns:
        One row per slice: study, loss, and the study's ``unlike_training``, ``novelty`` and ``any_spread``.
    """
    drawn = {"studies": options.studies, "test_studies": 0, "damage": False, "scanners": name}
    root, out = options.out / "phantoms" / name, options.out / name
    workers = Context.of(cfg).workers
    synth.run(cfg.synth.model_copy(update=drawn), root, seed=cfg.seed + _SEED, workers=workers)
    pipeline.predict([root / "stage_2_train"], [options.run] if options.run else [], out, cfg)
    truth = read_labels(root / "stage_2_train.csv").select(
        "slice", *(pl.col(c).alias(f"y_{c}") for c in CLASSES)
    )
    checks = read_escaped(out / "studies.csv").select("study", "unlike_training", "novelty", "any_spread")
    both = read_escaped(out / "slices.csv").join(truth, on="slice").join(checks, on="study")
    losses = slice_losses(both.select(f"y_{c}" for c in CLASSES).to_numpy(), both.select(CLASSES).to_numpy())
    flagged = pl.col("unlike_training").cast(pl.String).str.to_lowercase() == "true"
    return both.select("study", flagged.alias("flagged"), "novelty", "any_spread", loss=pl.Series(losses))


def per_study(table: pl.DataFrame) -> pl.DataFrame:
    """One row per study: mean loss of its slices, and what is known of it."""
    known = [pl.col(name).first() for name in ("flagged", "novelty", "any_spread")]
    return table.group_by("study", maintain_order=True).agg(pl.col("loss").mean(), *known)


def figures(table: pl.DataFrame) -> dict[str, Any]:
    """Loss and share of flagged studies of one set, with intervals."""
    boot = Bootstrap(table["study"].to_numpy(), _SAMPLES)
    studies = per_study(table)
    share = Bootstrap(studies["study"].to_numpy(), _SAMPLES).mean(studies["flagged"].to_numpy().astype(float))
    losses = {
        str(flag).lower(): _mean(table.filter(pl.col("flagged") == flag)["loss"]) for flag in (True, False)
    }
    return {
        "studies": len(studies),
        "log_loss": _plain(boot.mean(table["loss"].to_numpy())),
        "flagged": _plain(share),
        "log_loss_flagged": losses["true"],
        "log_loss_not_flagged": losses["false"],
    }


def rise(standard: pl.DataFrame, unseen: pl.DataFrame) -> dict[str, float]:
    """Relative rise of the mean loss per study, with an interval over pairs of studies of one patient."""
    pairs = standard.join(unseen, on="study", suffix="_unseen")
    a, b = pairs["loss"].to_numpy(), pairs["loss_unseen"].to_numpy()
    drawn = np.random.default_rng(0).integers(0, len(a), (_SAMPLES, len(a)))
    ratios = b[drawn].mean(axis=1) / a[drawn].mean(axis=1) - 1
    low, high = np.quantile(ratios, [0.025, 0.975])
    return {"value": float(b.mean() / a.mean() - 1), "low": float(low), "high": float(high)}


def correlations(studies: pl.DataFrame) -> dict[str, float]:
    """Spearman's rank correlation of a study's loss with each number that should announce it."""
    loss = studies["loss"].to_numpy()
    return {name: spearman(loss, studies[name].to_numpy()) for name in ("novelty", "any_spread")}


def spearman(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation; NaN where one of both is constant."""
    from scipy.stats import spearmanr

    if len(set(a.tolist())) == 1 or len(set(b.tolist())) == 1:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def text_of(result: dict[str, Any]) -> str:
    """The figures as lines of text."""
    lines = []
    for name, row in result["sets"].items():
        loss, share = row["log_loss"], row["flagged"]
        lines += [
            f"{name}: {row['studies']} studies, log loss {loss['value']:.4f} "
            f"[{loss['low']:.4f}, {loss['high']:.4f}]",
            f"  flagged {share['value']:.0%} [{share['low']:.0%}, {share['high']:.0%}]; log loss of those "
            f"{_shown(row['log_loss_flagged'])}, of the others {_shown(row['log_loss_not_flagged'])}",
        ]
    up = result["rise"]
    lines.append(f"rise of the loss per study: {up['value']:+.0%} [{up['low']:+.0%}, {up['high']:+.0%}]")
    told = ", ".join(f"{name} {value:.2f}" for name, value in result["correlation"].items())
    return "\n".join([*lines, f"rank correlation with a study's loss: {told}"])


def _mean(values: pl.Series) -> float | None:
    return float(values.mean()) if len(values) else None  # type: ignore[arg-type]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _plain(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--run", type=Path, default=None, help="run or bundle; default: the model in the package"
    )
    parser.add_argument("--studies", type=int, default=40, help="studies of each set")
    parser.add_argument("--config", type=Path, default=None, help="YAML file, or name of a shipped config")
    parser.add_argument("--out", type=Path, default=Path("runs/fitness"), help="output folder")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of config values")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
