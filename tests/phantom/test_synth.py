"""The set on disk: layout, counts, damage, and the same bytes from one process or two."""

from pathlib import Path

import pandas as pd
import pytest
from pydicom import config, dcmread

from rsna_seq.config import SynthConfig
from rsna_seq.errors import UsageError
from rsna_seq.labels import CLASSES
from rsna_seq.store.artifacts import read_manifest
from rsna_seq.tools.synth import SynthReport, run

CONFIG = SynthConfig(studies=5, test_studies=1, matrix=64, rare_share=0.08)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SynthReport]:
    root = tmp_path_factory.mktemp("phantoms")
    return root, run(CONFIG, root, seed=3, workers=1)


def test_the_same_seed_gives_the_same_bytes_in_two_processes(
    made: tuple[Path, SynthReport], tmp_path: Path
) -> None:
    root, report = made
    again = run(CONFIG, tmp_path, seed=3, workers=2)
    assert again.digest == report.digest
    for path in sorted(root.rglob("*.csv")) + sorted(root.rglob("*.dcm"))[:20]:
        assert path.read_bytes() == (tmp_path / path.relative_to(root)).read_bytes()


def test_the_layout_is_the_competition_s(made: tuple[Path, SynthReport]) -> None:
    root, report = made
    labels = pd.read_csv(root / "stage_2_train.csv")
    sample = pd.read_csv(root / "stage_2_sample_submission.csv")
    truth = pd.read_csv(root / "phantom_test_labels.csv")
    train = {p.stem for p in (root / "stage_2_train").glob("*.dcm")}
    test = {p.stem for p in (root / "stage_2_test").glob("*.dcm")}
    assert len(labels) == 6 * len(train) + 24
    assert labels.ID.duplicated().sum() == 24
    assert [name.rsplit("_", 1)[1] for name in labels.ID[:6]] == list(CLASSES)
    assert set(labels.ID.str.rsplit("_", n=1).str[0]) == train
    assert set(sample.ID.str.rsplit("_", n=1).str[0]) == test
    assert (sample.Label == 0.5).all()
    assert list(sample.ID) == list(truth.ID)
    assert set(truth.Label) <= {0, 1}
    assert report.slices == len(train) + len(test)
    assert report.files == report.slices + 3
    assert report.studies == 6


def test_each_class_is_seen_in_its_quota_of_studies(made: tuple[Path, SynthReport]) -> None:
    root, _ = made
    labels = pd.read_csv(root / "stage_2_train.csv").drop_duplicates()
    image, kind = labels.ID.str.rsplit("_", n=1).str[0], labels.ID.str.rsplit("_", n=1).str[1]
    with config.disable_value_validation():
        study = {
            p.stem: dcmread(p, stop_before_pixels=True).StudyInstanceUID
            for p in (root / "stage_2_train").iterdir()
        }
    seen = labels.Label.groupby([image.map(study), kind]).max().unstack()
    assert len(seen) == CONFIG.studies
    assert (seen.sum() >= CONFIG.rare_share * CONFIG.studies).all()


def test_one_file_of_each_split_is_cut_short(made: tuple[Path, SynthReport]) -> None:
    root, _ = made
    for split in ("stage_2_train", "stage_2_test"):
        sizes = sorted(p.stat().st_size for p in (root / split).iterdir())
        assert sizes[0] < 0.6 * sizes[1]
        assert sizes[1] > 64 * 64 * 2


def test_a_finished_set_is_reused_and_a_stale_one_rewritten(tmp_path: Path) -> None:
    small = SynthConfig(studies=1, test_studies=0, matrix=64, damage=False)
    first = run(small, tmp_path, seed=1, workers=1)
    assert not first.reused
    assert run(small, tmp_path, seed=1, workers=1).reused
    next((tmp_path / "stage_2_train").iterdir()).unlink()
    again = run(small, tmp_path, seed=1, workers=1)
    assert not again.reused
    assert again.digest == first.digest
    other = run(small, tmp_path, seed=2, workers=1)
    assert other.digest != first.digest
    assert len(list((tmp_path / "stage_2_train").iterdir())) == other.slices
    assert read_manifest(tmp_path).config["seed"] == 2


def test_a_set_that_is_no_phantom_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "stage_2_train.csv").write_text("ID,Label\n")
    with pytest.raises(UsageError, match="not empty"):
        run(CONFIG, tmp_path, seed=0, workers=1)
    assert (tmp_path / "stage_2_train.csv").read_text() == "ID,Label\n"
