"""Make the model in the package: train on phantoms, score real studies, write the bundle.

    python benchmarks/packaged_model.py --out runs/packaged [--real FOLDER] [--only-score] [KEY=VALUE]...

1. All stages of ``configs/packaged.yaml``; about an hour on two cores. Stages that are there are kept.
2. With ``--real``, a folder with ``cranium`` (labelled, competition layout) and ``cq500`` (one folder
   per study), these studies, which no stage has seen, are scored.
3. ``rsna_seq/models/phantom.zip``: weights in half precision, and a model card with these scores.

The last line is JSON: size and digest of the bundle, and the scores.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.metrics import roc_auc_score

import rsna_seq
from rsna_seq.config import load_config
from rsna_seq.datasets.rsna2019.label_csv import read_labels
from rsna_seq.models import PACKAGED
from rsna_seq.pipeline import run_all
from rsna_seq.store.bundle import read_bundle
from rsna_seq.tools import bundle

_LICENCE = "Apache-2.0, as this package; no patient data was used"
_HIGHEST = 3
"""Number of slices of which a study's highest probabilities are averaged."""


def main(argv: list[str] | None = None) -> int:
    """Train, score, write the bundle."""
    asked = _parse(argv)
    if not asked.only_score:
        run_all(load_config("packaged", asked.overrides), asked.out)
    model = rsna_seq.TrainedRun(asked.out, device="cpu")
    scores = score_real(model, asked.real) if asked.real else {}
    if not asked.only_score:
        with tempfile.TemporaryDirectory() as folder:
            notes = Path(folder) / "notes.md"
            notes.write_text(notes_of(scores), encoding="utf-8")
            name = "rsna_seq phantom model"
            made = Path(folder) / PACKAGED.name
            bundle.run(asked.out, made, licence=_LICENCE, name=name, half=True, notes=notes)
            shutil.copyfile(made, PACKAGED)
        scores |= {"bytes": PACKAGED.stat().st_size, "digest": read_bundle(PACKAGED).digest}
        if asked.real:
            scores["half"] = score_real(rsna_seq.TrainedRun(PACKAGED, device="cpu"), asked.real)
    print(json.dumps(scores))
    return 0


def score_real(model: "rsna_seq.TrainedRun", real: Path) -> dict[str, Any]:
    """Score labelled and single real studies.

    Args:
        model: The model.
        real: Folder with ``cranium`` and ``cq500``.

    Returns:
        AUC over slices and studies of ``cranium``, and the mean of the highest ``any`` of each study.
    """
    found: dict[str, Any] = {}
    cranium = real / "cranium"
    if cranium.is_dir():
        slices = rsna_seq.predict(cranium / "stage_2_train", model)
        truth = read_labels(cranium / "stage_2_train.csv").select("slice", truth="any")
        joined = slices.join(truth, on="slice", how="inner")
        studies = joined.group_by("study").agg(pl.col("truth").max(), p=_highest())
        found["cranium"] = {
            "studies": len(studies),
            "auc_slices": _auc(joined["truth"], joined["any"]),
            "auc_studies": _auc(studies["truth"], studies["p"]),
            "highest_without": float(studies.filter(truth=0)["p"].max() or np.nan),  # type: ignore[arg-type]
            "lowest_with": float(studies.filter(truth=1)["p"].min() or np.nan),  # type: ignore[arg-type]
        }
    for folder in sorted((real / "cq500").glob("*")) if (real / "cq500").is_dir() else []:
        found[folder.name] = float(rsna_seq.predict(folder, model).select(_highest()).item())
    return found


def notes_of(scores: dict[str, Any]) -> str:
    """The scores on real studies as a section of the model card."""
    if not scores:
        return ""
    lines = ["## Real studies, which no stage has seen", ""]
    if "cranium" in scores:
        c = scores["cranium"]
        lines.append(
            f"- {c['studies']} studies of one real anatomy, deformed, with painted haemorrhages: AUC "
            f"{c['auc_slices']:.3f} over slices and {c['auc_studies']:.3f} over studies."
        )
    lines += [
        f"- {name}: mean of the three highest probabilities of any haemorrhage {value:.3f}."
        for name, value in scores.items()
        if isinstance(value, float)
    ]
    return "\n".join([*lines, "", "So few studies give no reliable figure.", ""])


def _highest() -> pl.Expr:
    """Mean of the highest probabilities of ``any``."""
    return pl.col("any").top_k(_HIGHEST).mean()


def _auc(truth: pl.Series, p: pl.Series) -> float:
    return float(roc_auc_score(truth.to_numpy(), p.to_numpy())) if truth.n_unique() == 2 else float("nan")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/packaged"), help="folder of the run")
    parser.add_argument("--real", type=Path, help="folder of real studies to score")
    parser.add_argument("--only-score", action="store_true", help="score a finished run, write no bundle")
    parser.add_argument("overrides", nargs="*", help="config values, KEY=VALUE")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
