"""Does a light decoder on the frozen networks outline the haemorrhage? Measured on phantoms with their masks.

    python benchmarks/bench_outline.py [--out runs/maps] [--train 120] [--real DIR]

1. One decoder per network (:mod:`map_decoder`) is trained on phantoms of scanners of every kind.
2. Its threshold is chosen on the phantoms on which ``bench_maps.py`` chooses.
3. On phantoms of other seeds, standard and unseen scanners: pointing and Dice coefficient on the key slice as
   in ``bench_maps.py``, and the Dice coefficient in the whole study, with 95 % intervals over studies.
4. ``--real``: millilitres that are outlined in each study of a folder of real studies.

Phantoms, decoders and results are kept in ``--out``. The last line of standard output is JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_maps import FOUND, SAMPLES, SEEDS, dice, distance, figures, shown, table
from harness import peak_mb
from map_decoder import Decoder, outline, train
from map_phantoms import Case, Finding, cases, findings
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from rsna_seq.config import IndexConfig
from rsna_seq.errors import RsnaSeqError
from rsna_seq.imaging.neighbours import neighbour_indices
from rsna_seq.imaging.skull import inside_skull
from rsna_seq.imaging.volume import Volume
from rsna_seq.labels import CLASSES
from rsna_seq.models import packaged_model
from rsna_seq.phantom import KINDS
from rsna_seq.scoring.bootstrap import Bootstrap
from rsna_seq.stages import cache, index
from rsna_seq.stages.predict.trained import TrainedRun
from rsna_seq.store.files import write_json
from rsna_seq.store.provenance import commit

LEVELS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Probabilities of a pixel, of which one is chosen as the threshold."""
TRAIN_SEED = 7000


def outlines(decoders: list[Decoder], volume: Volume) -> NDArray[np.float32]:
    """(slab, 5, y, x) probabilities of a study; 0 outside the skull."""
    cfg = decoders[0].net[0].cfg
    near = neighbour_indices(volume.z_mm, cfg.neighbours, cfg.spacing_mm)
    found = np.concatenate(
        [outline(decoders, volume.hu[part]) for part in np.array_split(near, -(-len(near) // 8))]
    )
    inside = np.stack([inside_skull(hu) for hu in volume.hu])
    return found * inside[:, None]


def judge(found: list[Case], decoders: list[Decoder]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of findings, as ``bench_maps.measure`` makes them, and the overlap of whole studies."""
    rows, studies = [], []
    for case in found:
        start = time.perf_counter()
        p = outlines(decoders, case.volume())
        seconds = (time.perf_counter() - start) / len(p)
        for finding in findings([case], FOUND):
            rows.append(_key_slice(finding, p[finding.slab, finding.kind], seconds))
            truth = case.mask(finding.kind)
            mine = [dice(p[:, finding.kind] > level, truth) for level in LEVELS]
            studies.append({"study": case.name, "kind": CLASSES[finding.kind], "dice": mine})
    return rows, studies


def _key_slice(finding: Finding, p: NDArray[np.float32], seconds: float) -> dict[str, Any]:
    return {
        "study": finding.case.name,
        "kind": CLASSES[finding.kind],
        "distance_mm": distance(p, finding.mask, finding.case.pixel_mm),
        "dice": [dice(p > level, finding.mask) for level in LEVELS],
        "seconds": seconds,
    }


def real_volumes(folder: Path, decoders: list[Decoder], run: TrainedRun, level: float) -> dict[str, Any]:
    """Millilitres of each type that are outlined in each study of a folder."""
    found = index.scan(folder, IndexConfig())
    answer: dict[str, Any] = {}
    for rows in cache.split_by_pass(found.slices):
        read = cache.apply(rows, found.root, run.cache)
        if read.volume is None:
            continue
        p = outlines(decoders, read.volume) > level
        side = float(read.slabs["side"][0]) / run.cache.size
        pixel = side * side * float(rows["row_mm"][0]) * float(rows["col_mm"][0])
        z = read.volume.z_mm
        thick = np.gradient(z) if len(z) > 1 else np.array([5.0])
        volumes = (p.sum(axis=(2, 3)) * thick[:, None]).sum(axis=0) * pixel / 1000
        study = Path(rows["file"][0]).parts[0]
        answer[study] = {kind: round(float(v), 2) for kind, v in zip(KINDS, volumes, strict=True)}
    return answer


def decoders_of(run: TrainedRun, asked: argparse.Namespace) -> list[Decoder]:
    """Train one decoder per network, or read those that are in the folder."""
    made: list[Case] = []
    found = []
    for fold, net in run.embedders.items():
        file = (
            asked.out / f"decoder_{run.identity.digest[:12]}_{asked.train}_{asked.epochs}_{fold}.safetensors"
        )
        if not file.exists():
            folder = asked.out / "cases"
            made = made or list(cases(folder, run, asked.train, TRAIN_SEED, "varied", asked.matrix))
            decoder = train(net, made, epochs=asked.epochs, seed=fold)
            save_file(decoder.state_dict(), file)
        decoder = Decoder(net)
        decoder.load_state_dict(load_file(file))
        found.append(decoder.eval())
    return found


def main(argv: list[str] | None = None) -> int:
    """Train, choose, report, print the tables and the JSON line."""
    asked = _parse(argv)
    start = time.monotonic()
    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    try:
        result = _measure_all(asked)
    except RsnaSeqError as error:
        print(f"bench_outline: {error}", file=sys.stderr)
        return error.exit_code
    result |= {"commit": commit(), "peak_mb": round(peak_mb(), 1)}
    result["seconds"] = round(time.monotonic() - start, 1)
    write_json(asked.out / "outline.json", result)
    print(f"peak memory {result['peak_mb']:,.0f} MB, {result['seconds']:.1f} s in total, one core")
    print(json.dumps(result), flush=True)
    return 0


def _measure_all(asked: argparse.Namespace) -> dict[str, Any]:
    run = TrainedRun(packaged_model(), "cpu")
    decoders = decoders_of(run, asked)
    folder, level = asked.out / "cases", 0
    result: dict[str, Any] = {"benchmark": "outline", "sets": {}}
    sets = (
        ("choose", "varied", asked.choose),
        ("report", "standard", asked.report),
        ("report", "unseen", asked.report),
    )
    for phase, scanners, count in sets:
        rows, studies = judge(list(cases(folder, run, count, SEEDS[phase], scanners, asked.matrix)), decoders)
        if phase == "choose":
            level = int(np.mean([row["dice"] for row in studies], axis=0).argmax())
            result["level"] = LEVELS[level]
        found = figures(rows, LEVELS, level)
        draws = Bootstrap(np.array([row["study"] for row in studies]), SAMPLES, 0)
        whole = np.array([row["dice"][level] for row in studies])
        found["study_dice"] = draws.mean(whole)._asdict()
        kinds = np.array([row["kind"] for row in studies])
        found["study_dice_by_kind"] = {str(k): float(whole[kinds == k].mean()) for k in np.unique(kinds)}
        print(table(f"{phase}, {scanners} scanners", {"decoder": found}))
        print(f"Dice in the whole study: {shown(found['study_dice'])}, {found['study_dice_by_kind']}")
        result["sets"][scanners] = found
    if asked.real:
        result["real_ml"] = real_volumes(asked.real, decoders, run, LEVELS[level])
    return result


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/maps"), help="output folder")
    parser.add_argument("--train", type=int, default=120, help="number of phantoms to train on")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--choose", type=int, default=60, help="number of phantoms to choose on")
    parser.add_argument("--report", type=int, default=80, help="number of phantoms to report on")
    parser.add_argument("--matrix", type=int, default=256, help="rows and columns of a slice")
    parser.add_argument("--real", type=Path, help="folder of real studies")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
