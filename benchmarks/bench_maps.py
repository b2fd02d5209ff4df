"""Do maps of where a network found a class point at the haemorrhage? Measured on phantoms with their masks.

    python benchmarks/bench_maps.py [--run RUN] [--out runs/maps] [--choose 40] [--report 80] [--second 240]

1. Phantoms of scanners of every kind (``synth.scanners=varied``), to choose a method and its threshold.
2. Phantoms of other seeds, the same patients and haemorrhages on standard and on unseen scanners: the chosen
   method and the references, with 95 % intervals from a bootstrap over studies.
3. Per method: the share of findings whose maximum lies within 5 mm of the mask, the Dice coefficient above
   the threshold, and seconds per finding on one core. ``docs/localization.md`` says what must be reached.

Phantoms and maps are kept in ``--out``, so that a call that was stopped goes on. The last line of standard
output is all figures as JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from harness import peak_mb
from map_methods import METHODS, Method, located
from map_phantoms import Finding, cases, findings
from numpy.typing import NDArray

from rsna_seq.errors import RsnaSeqError
from rsna_seq.imaging.neighbours import neighbour_indices
from rsna_seq.labels import CLASSES
from rsna_seq.models import packaged_model
from rsna_seq.nets.cnn import Embedder
from rsna_seq.nets.maps import LOWEST
from rsna_seq.scoring.bootstrap import Bootstrap
from rsna_seq.stages.predict.trained import TrainedRun
from rsna_seq.store.files import write_json
from rsna_seq.store.provenance import commit

REACH_MM = 5.0
"""Largest distance of the maximum from the mask."""
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Thresholds of a map as shares of its maximum, of which one is chosen."""
FOUND = LOWEST
"""Probability above which a type is found."""
REFERENCES = ("brightest", "grad_cam_4")
SEEDS = {"choose": 7100, "report": 7200, "second": 7300}
SAMPLES = 2000


def measure(finding: Finding, nets: list[Embedder], method: Method) -> dict[str, Any]:
    """Judge the map of one finding: distance of the maximum, Dice coefficient per threshold, seconds."""
    case, cfg = finding.case, nets[0].cfg
    start = time.perf_counter()
    at = neighbour_indices(case.z_mm, cfg.neighbours, cfg.spacing_mm)[finding.slab]
    found = located(nets, case.hu[at], finding.kind, method)
    seconds = time.perf_counter() - start
    return {
        "study": case.name,
        "kind": CLASSES[finding.kind],
        "distance_mm": distance(found, finding.mask, case.pixel_mm),
        "dice": [dice(found > level, finding.mask) for level in LEVELS],
        "seconds": seconds,
    }


def distance(found: NDArray[np.float32], mask: NDArray[np.bool_], pixel_mm: float) -> float:
    """Distance of the maximum of a map from a mask in mm; infinite for an empty mask or map."""
    if not mask.any() or not found.any():
        return float("inf")
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(away.flat[int(found.argmax())] * pixel_mm)


def dice(found: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float:
    """Dice coefficient; 0 for an empty mask."""
    both = found.sum() + mask.sum()
    return float(2 * (found & mask).sum() / both) if mask.any() else 0.0


def run_all(
    folder: Path, name: str, some: Iterable[Finding], nets: list[Embedder], methods: Iterable[str]
) -> list[dict[str, Any]]:
    """Measure methods on findings; rows that are in the folder are read."""
    file = folder / f"{name}.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    done = {(row["study"], row["kind"], row["method"]) for row in rows}
    for number, finding in enumerate(some):
        for method in methods:
            if (finding.case.name, CLASSES[finding.kind], method) not in done:
                rows.append({"method": method, **measure(finding, nets, METHODS[method])})
        if number % 10 == 9:
            write_json(file, rows)
    write_json(file, rows)
    return rows


def figures(rows: list[dict[str, Any]], levels: Sequence[float], level: int) -> dict[str, Any]:
    """Pointing accuracy and Dice coefficient of one method, over all findings and per type."""
    draws = Bootstrap(np.array([row["study"] for row in rows]), SAMPLES)
    hit = np.array([row["distance_mm"] <= REACH_MM for row in rows])
    overlap = np.array([row["dice"][level] for row in rows])
    kinds = np.array([row["kind"] for row in rows])
    row: dict[str, Any] = {"all": {"findings": len(rows)}}
    for kind in ("all", *np.unique(kinds)):
        among = np.ones(len(rows), bool) if kind == "all" else kinds == kind
        row[str(kind)] = {
            "findings": int(among.sum()),
            "pointing": draws.mean(hit, among)._asdict(),
            "inside": draws.mean(np.array([r["distance_mm"] == 0 for r in rows]), among)._asdict(),
            "dice": draws.mean(overlap, among)._asdict(),
        }
    return row | {
        "seconds": float(np.mean([r["seconds"] for r in rows])),
        "level": levels[level],
    }


def difference(rows: list[dict[str, Any]], one: str, other: str) -> dict[str, float]:
    """Pointing accuracy of a method minus that of another on the same findings, with its interval."""
    first, second = of_method(rows, one), of_method(rows, other)
    hits = [[row["distance_mm"] <= REACH_MM for row in part] for part in (first, second)]
    assert [(r["study"], r["kind"]) for r in first] == [(r["study"], r["kind"]) for r in second]
    draws = Bootstrap(np.array([row["study"] for row in first]), SAMPLES)
    return draws.mean(np.array(hits[0], float) - np.array(hits[1], float))._asdict()


def best_level(rows: list[dict[str, Any]]) -> int:
    """Index of the threshold with the highest mean Dice coefficient."""
    return int(np.mean([row["dice"] for row in rows], axis=0).argmax())


def table(title: str, found: dict[str, dict[str, Any]]) -> str:
    """Format figures as a Markdown table."""
    kinds = [c for c in CLASSES if c != "any"]
    head = f"| {title} | pointing | inside | Dice | {' | '.join(kinds)} | s |"
    lines = [head, "|" + "---|" * (len(kinds) + 5)]
    for name, row in found.items():
        cells = [shown(row["all"][key]) for key in ("pointing", "inside", "dice")]
        cells += [
            f"{row[k]['pointing']['value']:.2f} ({row[k]['findings']})" if k in row else "" for k in kinds
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['seconds']:.2f} |")
    return "\n".join(lines)


def shown(interval: dict[str, float]) -> str:
    """Format a figure with its interval."""
    return f"{interval['value']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


def of_method(rows: list[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    """The rows of one method."""
    return [row for row in rows if row["method"] == method]


def main(argv: list[str] | None = None) -> int:
    """Choose, report, print the tables and the JSON line."""
    asked = _parse(argv)
    start = time.monotonic()
    torch.set_num_threads(1)
    try:
        result = _measure_all(asked)
    except RsnaSeqError as error:
        print(f"bench_maps: {error}", file=sys.stderr)
        return error.exit_code
    result |= {"commit": commit(), "peak_mb": round(peak_mb(), 1)}
    result["seconds"] = round(time.monotonic() - start, 1)
    write_json(asked.out / "maps.json", result)
    print(f"peak memory {result['peak_mb']:,.0f} MB, {result['seconds']:.1f} s in total, one core")
    print(json.dumps(result), flush=True)
    return 0


def _measure_all(asked: argparse.Namespace) -> dict[str, Any]:
    run = TrainedRun(asked.run or packaged_model(), "cpu")
    nets = list(run.embedders.values())

    def rows_of(phase: str, scanners: str, count: int, methods: Iterable[str]) -> list[dict[str, Any]]:
        made = list(cases(asked.out / "cases", run, count, SEEDS[phase], scanners, asked.matrix))
        return run_all(asked.out, f"{phase}_{scanners}", findings(made, FOUND), nets, methods)

    rows = rows_of("choose", "varied", asked.choose, METHODS)
    levels = {name: best_level(of_method(rows, name)) for name in METHODS}
    chosen_of = {name: figures(of_method(rows, name), LEVELS, levels[name]) for name in METHODS}
    print(table("choosing", chosen_of))
    networks = [name for name in METHODS if name != "brightest"]
    chosen = max(networks, key=lambda name: chosen_of[name]["all"]["pointing"]["value"])
    result: dict[str, Any] = {
        "benchmark": "maps",
        "chosen": chosen,
        "choose": chosen_of,
        "report": {},
        "difference": {},
    }
    for scanners in ("standard", "unseen") if asked.report else ():
        rows = rows_of("report", scanners, asked.report, (chosen, *REFERENCES))
        found = {
            name: figures(of_method(rows, name), LEVELS, levels[name])
            for name in dict.fromkeys((chosen, *REFERENCES))
        }
        print(table(f"{scanners} scanners", found))
        result["report"][scanners] = found
        result["difference"][scanners] = difference(rows, chosen, "brightest")
        print(f"pointing above that of the brightest spot: {shown(result['difference'][scanners])}")
    if asked.second:
        rows = rows_of("second", "unseen", asked.second, (chosen, "brightest"))
        found = {name: figures(of_method(rows, name), LEVELS, levels[name]) for name in (chosen, "brightest")}
        print(table("unseen scanners, second set", found))
        result["report"]["second"] = found
        result["difference"]["second"] = difference(rows, chosen, "brightest")
        print(f"pointing above that of the brightest spot: {shown(result['difference']['second'])}")
    return result


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, help="finished run or bundle; default: the model in the package")
    parser.add_argument("--out", type=Path, default=Path("runs/maps"), help="output folder")
    parser.add_argument("--choose", type=int, default=40, help="number of phantoms to choose on")
    parser.add_argument("--report", type=int, default=80, help="number of phantoms to report on")
    parser.add_argument("--second", type=int, default=0, help="number of phantoms of the second set")
    parser.add_argument("--matrix", type=int, default=256, help="rows and columns of a slice")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
