"""Phantoms straight to the cache of a run: the same HU and tables as by way of DICOM files."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from rsna_seq import pipeline
from rsna_seq.config import Config, load_config
from rsna_seq.errors import UsageError
from rsna_seq.phantom import writer
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.store.tables import read_index
from rsna_seq.tools import phantom_run, synth

FILE_COLUMNS = ("file_size", "file_mtime_ns", "pixel_offset")


def _config(*overrides: str) -> Config:
    fixed = ("workers=1", "seed=5", "synth.test_studies=0", "synth.matrix=64", "synth.damage=false")
    fixed += ("cache.size=48", "index.folds=2", "index.cross_folds=2", "index.holdout=0")
    return load_config(None, [*fixed, *overrides])


def _by_dicom(cfg: Config, folder: Path) -> Path:
    synth.run(cfg.synth, folder / "dicom", seed=cfg.seed, workers=1)
    data = cfg.data.model_copy(update={"root": folder / "dicom"})
    dicom = cfg.model_copy(update={"data": data, "synth": cfg.synth.model_copy(update={"format": "dicom"})})
    for stage in ("index", "cache"):
        pipeline.run_stage(stage, dicom, folder / "run")
    return folder / "run"


def _must_be_equal(one: Path, other: Path) -> None:
    assert_frame_equal(read_index(one).drop(FILE_COLUMNS), read_index(other).drop(FILE_COLUMNS))
    for table in ("1_index/studies.parquet", "1_index/quarantine.parquet", "2_cache/slabs.parquet"):
        assert_frame_equal(pl.read_parquet(one / table), pl.read_parquet(other / table))
    for by_dicom, direct in zip(PixelCache(one / "2_cache"), PixelCache(other / "2_cache"), strict=True):
        assert by_dicom.study == direct.study
        np.testing.assert_array_equal(by_dicom.hu, direct.hu)


@pytest.mark.filterwarnings("error")  # pydicom warns of ids that are not UIDs; users must not see it
@pytest.mark.parametrize(
    ("layout", "studies", "scanners"),
    [("signed16", 2, "standard"), ("wrap", 1, "varied")],
)
def test_hu_and_tables_are_those_of_the_dicom_files(
    layout: str, studies: int, scanners: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_LAYOUTS", ((1.0, layout),))
    cfg = _config(f"synth.studies={studies}", f"synth.scanners={scanners}", "synth.format=hu")
    pipeline.synth(cfg, tmp_path / "direct")
    _must_be_equal(_by_dicom(cfg, tmp_path), tmp_path / "direct")
    assert (tmp_path / "direct/1_index/phantom_scanners.csv").is_file() == (scanners != "standard")
    assert not (tmp_path / "direct/0_synth").exists()
    assert set(RunFolder(tmp_path / "direct").open("index", "cache")) == {"index", "cache"}
    assert load_config(tmp_path / "direct/config.yaml").synth.format == "hu"


def test_an_interrupted_command_renders_only_the_studies_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = _config("synth.studies=3", "synth.format=hu", "limit=2")
    whole, rendered, make = tmp_path / "whole", [], phantom_run.make_study
    pipeline.synth(cfg, whole)

    def interrupted(task: phantom_run.StudyTask) -> phantom_run.MadeStudy:
        if rendered:
            raise KeyboardInterrupt
        rendered.append(task.name)
        return make(task)

    monkeypatch.setattr(phantom_run, "make_study", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.synth(cfg, tmp_path / "run")
    assert not RunFolder(tmp_path / "run").is_finished("index")
    monkeypatch.setattr(phantom_run, "make_study", lambda task: rendered.append(task.name) or make(task))
    pipeline.synth(cfg, tmp_path / "run")
    assert len(rendered) == len(set(rendered)) == 2
    _must_be_equal(whole, tmp_path / "run")
    capsys.readouterr()
    pipeline.synth(cfg, tmp_path / "run")
    assert len(rendered) == 2
    assert capsys.readouterr().err.count("up to date") == 2
    smaller = cfg.model_copy(update={"cache": cfg.cache.model_copy(update={"size": 32})})
    pipeline.run_stage("cache", smaller, tmp_path / "run")
    assert len(rendered) == 4
    assert next(iter(PixelCache(tmp_path / "run/2_cache"))).hu.shape[1:] == (32, 32)


def test_the_demo_refuses_phantoms_without_dicom_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="reads DICOM files"):
        pipeline.demo(_config("synth.format=hu"), tmp_path)
    assert not list(tmp_path.iterdir())
