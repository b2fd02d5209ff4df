"""Report of a prediction: listed classes, slices and positions, and escaping of markup."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rsna_seq.imaging.volume import Volume
from rsna_seq.labels import CLASSES
from rsna_seq.report.page import write_prediction_report
from rsna_seq.report.strip import study_strip
from rsna_seq.store.tables import PREDICTED_SLICES, QUARANTINE, STUDY_CHECKS, from_rows

EVIL = "<script>alert('1')</script>&\"x"
NONE = from_rows([], QUARANTINE)


def predicted(study: str, any_: list[float]) -> pl.DataFrame:
    rows: list[dict[str, object]] = [
        {"study": study, "series": "r", "slice": f"{study}-{k}", "file": "f", "z_mm": -10.0 + 5 * k}
        | dict.fromkeys(CLASSES, 0.1)
        | {"any": p, "subdural": p / 2}
        for k, p in enumerate(any_)
    ]
    return from_rows(rows, PREDICTED_SLICES)


def checks_of(slices: pl.DataFrame, reason: str = "") -> pl.DataFrame:
    """STUDY_CHECKS of the studies of some slices, all unlike training if there is a reason."""
    names = slices["study"].unique(maintain_order=True)
    row = {"unlike_training": bool(reason), "unlike_reason": reason, "any_spread": 0.125}
    return from_rows([{"study": name, **row} for name in names], STUDY_CHECKS)


def write(
    slices: pl.DataFrame, out: Path, excluded: pl.DataFrame = NONE, volume: bool = True, reason: str = ""
) -> str:
    def read(study: str) -> Volume | None:
        z = slices.filter(pl.col("study") == study)["z_mm"].to_numpy()
        return Volume(study, np.zeros((len(z), 8, 8), dtype=np.int16), z) if volume else None

    write_prediction_report(slices, checks_of(slices, reason), read, 0.5, out, excluded)
    return out.read_text(encoding="utf-8")


def test_each_class_above_its_threshold_is_named_with_its_slices_and_their_z(tmp_path: Path) -> None:
    page = write(predicted("A", [0.6, 0.9, 0.2, 0.4, 0.7]), tmp_path / "report.html")
    summary = re.sub(r"\s+", " ", page)
    assert "<b>any</b>: 3 slices, z -10.0 to -5.0, 10.0 mm" in summary
    assert "<b>subdural</b>" not in summary
    for k, p in ((0, 0.6), (1, 0.9), (4, 0.7)):
        assert f">A-{k}</th><td>{-10 + 5 * k:.1f}</td><td>{p:.3f}</td>" in page
    assert "A-2<" not in page
    assert "1 of 1 study has a class above this threshold" in summary


def test_a_study_without_a_class_above_the_threshold_is_listed(tmp_path: Path) -> None:
    page = write(predicted("A", [0.1, 0.5]), tmp_path / "report.html", volume=False)
    assert "no class above 0.5" in page
    assert "<svg" not in page


def test_a_study_unlike_training_and_the_spread_over_the_networks_are_told(tmp_path: Path) -> None:
    reason = "brain tissue at 43 HU (training 24 to 36)"
    page = write(predicted("A", [0.6]), tmp_path / "report.html", volume=False, reason=reason)
    assert f"the probabilities may be wrong: {reason}." in page
    assert "1 study is unlike the training data" in page
    assert "0.600 (standard deviation over the networks 0.125)" in page
    page = write(predicted("A", [0.6]), tmp_path / "report.html", volume=False)
    assert "0 studies are unlike the training data" in page
    assert "may be wrong" not in page


def test_text_from_files_is_escaped(tmp_path: Path) -> None:
    lost = [{"file": EVIL, "action": "quarantined", "reason": "empty_file", "detail": EVIL}]
    page = write(predicted(EVIL, [0.9]), tmp_path / "report.html", from_rows(lost, QUARANTINE))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "the file is empty" in page
    assert not re.search(r"https?://(?!www\.w3\.org/)", page)


def test_no_study_and_many_studies_make_a_page(tmp_path: Path) -> None:
    assert "0 studies" in write(predicted("A", []), tmp_path / "none.html")
    many = pl.concat([predicted(f"S{i:03d}", [0.9, 0.2]) for i in range(205)])
    page = write(many, tmp_path / "many.html", volume=False)
    assert "only the first 200 studies are listed" in page
    assert "S199" in page
    assert "S200" not in page


@pytest.mark.parametrize("slabs", [1, 2, 60])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_strip_is_drawn_of_any_number_of_slabs(slabs: int, labelled: bool) -> None:
    hu = np.zeros((slabs, 16, 16), dtype=np.int16)
    labels = np.ones((slabs, len(CLASSES)), dtype=np.int8) if labelled else None
    p = np.full((slabs, len(CLASSES)), 0.3)
    drawn = study_strip(hu, np.arange(slabs) * 0.6, p, labels)
    assert drawn.startswith('<svg role="img" aria-label="')
    assert drawn.count("<image") == min(slabs, 10)
    assert drawn == study_strip(hu, np.arange(slabs) * 0.6, p, labels)
