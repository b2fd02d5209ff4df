"""Where a class was found, from DICOM bytes to the page; in a phantom it lies in the haemorrhage."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rsna_seq.config import IndexConfig, PredictConfig, SynthConfig
from rsna_seq.context import Context
from rsna_seq.models import packaged_model
from rsna_seq.phantom import KINDS
from rsna_seq.phantom.prevalence import StudyPlan
from rsna_seq.phantom.studies import MadeStudy, StudyTask, make_study
from rsna_seq.phantom.writer import slice_bytes
from rsna_seq.stages.predict import run as predict

KIND = "intraparenchymal"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[MadeStudy, Path]:
    """A phantom with one type of haemorrhage and its masks, and the files of the slices around it."""
    cfg = SynthConfig(matrix=256, damage=False)
    study = make_study(StudyTask("test", 7400, 1, StudyPlan(1, (KIND,)), cfg, cut=False), masks=True)
    folder = tmp_path_factory.mktemp("phantom") / "study"
    folder.mkdir()
    shown = np.array(study.study.scan.offsets)[study.study.area.any(axis=1)]
    for i, hu in enumerate(study.study.hu):
        if not shown.min() - 16 < study.study.scan.offsets[i] < shown.max() + 16:
            continue
        data = slice_bytes(hu, study.study.scan, study.ids, i, study.style)
        (folder / f"{study.ids.images[i]}.dcm").write_bytes(data)
    return study, folder


@pytest.fixture(scope="module")
def located(made: tuple[MadeStudy, Path]) -> Path:
    """Its prediction by the model in the package."""
    return _predict(made[1], made[1].parent / "out", PredictConfig(operating_point="fixed", locate=True))


def _predict(folder: Path, out: Path, cfg: PredictConfig) -> Path:
    """Predict in this process, which takes half the time of a command."""
    ctx = Context(device="cpu", workers=1)
    predict.run(cfg, ctx, [folder], [packaged_model()], out, indexing=IndexConfig())
    return out


def _study(out: Path) -> dict[str, Any]:
    (study,) = json.loads((out / "studies.json").read_text(encoding="utf-8"))["studies"]
    found: dict[str, Any] = study
    return found


def test_the_location_lies_in_the_haemorrhage(made: tuple[MadeStudy, Path], located: Path) -> None:
    found = _study(located)["findings"][KIND]
    assert found["above"]
    place = found["location"]
    at = made[0].ids.images.index(found["key_image"]["slice"])
    masks = made[0].study.masks
    assert masks is not None
    mask = masks[at, KINDS.index(KIND)] > 90
    pixel_mm = made[0].study.scan.field_of_view / 256
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * pixel_mm
    assert away[round(place["row"]), round(place["column"])] <= 5
    assert mask.mean() < 0.03, "a place at random would not be near it"
    assert place["x_mm"] == pytest.approx(place["column"] * pixel_mm, abs=0.11)
    assert place["y_mm"] == pytest.approx(place["row"] * pixel_mm, abs=0.11)


def test_the_page_shows_it_and_says_what_was_measured(located: Path) -> None:
    page = (located / "report.html").read_text(encoding="utf-8")
    assert f"where the networks found {KIND}" in page
    assert "on phantoms" in page


def test_only_findings_above_their_threshold_are_located(located: Path) -> None:
    for name, found in _study(located)["findings"].items():
        assert found["location"] is None or (found["above"] and name != "any")


def test_the_maps_can_be_switched_off(made: tuple[MadeStudy, Path], located: Path) -> None:
    cfg = PredictConfig(operating_point="fixed", locate=False)
    out = _predict(made[1], made[1].parent / "off", cfg)
    assert _study(out)["findings"][KIND]["location"] is None
    assert "where the networks found" not in (out / "report.html").read_text(encoding="utf-8")
    both = (_study(folder)["findings"][KIND]["probability"] for folder in (out, located))
    assert next(both) == next(both)
