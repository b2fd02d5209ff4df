"""``embed.refit``: one more network on all patients, which changes no out-of-fold result."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from builders import replace_table, tiny_cache

from rsna_seq.config import EmbedConfig, SequenceConfig, StackConfig, load_config
from rsna_seq.context import Context
from rsna_seq.errors import UsageError
from rsna_seq.folds import HELD_OUT
from rsna_seq.imaging.volume import Volume
from rsna_seq.labels import CLASSES
from rsna_seq.stages import embed, sequence, stack
from rsna_seq.stages.predict.trained import TrainedRun
from rsna_seq.store.artifacts import read_manifest
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.run_folder import RunFolder, open_folds
from rsna_seq.store.tables import LOGITS, SLABS, read_table

CPU = Context(device="cpu")
EMBED = EmbedConfig(backbone="resnet10t", pretrained=False, epochs=1, batch_size=8)
REFIT = EMBED.model_copy(update={"refit": True})
SEQUENCE = SequenceConfig(epochs=1, batch_size=4, hidden=8, vectors=False)
STACK = StackConfig(rounds=5, min_leaf=2)
LAST = 2
"""Number of the network that is trained on all patients, after two folds."""


def _run(folder: Path, cfg: EmbedConfig) -> RunFolder:
    """A run of seven patients and one that is held out."""
    run = RunFolder(folder)
    tiny_cache(folder / "2_cache")
    slabs = PixelCache(run["cache"]).slabs
    held = pl.col("study") == "S007"
    fold = [pl.when(held).then(HELD_OUT).otherwise(pl.col(c)).cast(pl.Int16).alias(c) for c in FOLDS]
    replace_table(slabs.with_columns(fold), run["cache"] / "slabs.parquet", SLABS)
    embed.run(cfg, CPU, run)
    sequence.run(SEQUENCE, CPU, run)
    stack.run(STACK, CPU, run)
    return run


FOLDS = ("fold", "cross_fold")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return _run(tmp_path_factory.mktemp("plain"), EMBED)


@pytest.fixture(scope="module")
def refitted(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return _run(tmp_path_factory.mktemp("refitted"), REFIT)


def test_it_is_trained_on_all_patients_that_are_not_held_out(refitted: RunFolder) -> None:
    counts = {
        f: fold.manifest.counts["studies trained on"] for f, fold in open_folds(refitted["embed"]).items()
    }
    assert counts == {0: 3, 1: 4, LAST: 7}
    history = json.loads((refitted["embed"] / f"fold{LAST}" / "history.json").read_text(encoding="utf-8"))
    assert [epoch["score"] for epoch in history] == [None]


def test_no_out_of_fold_result_changes(plain: RunFolder, refitted: RunFolder) -> None:
    for stage in ("embed", "sequence", "stack"):
        before, after = (read_table(run[stage] / "logits.parquet", LOGITS) for run in (plain, refitted))
        held = pl.col("study") == "S007"
        assert after.filter(~held).equals(before.filter(~held)), stage
        assert set(after.filter(held)["net"]) == {0, 1, LAST}, stage
        assert set(after.filter(~held)["net"]) == {0, 1}, stage


def test_predict_averages_it_with_the_networks_of_the_folds(plain: RunFolder, refitted: RunFolder) -> None:
    volume = PixelCache(plain["cache"]).read("S000")
    three, two = (TrainedRun(run.path, "cpu").answers(volume).probabilities for run in (refitted, plain))
    assert (len(two), len(three)) == (4, 6)  # networks times crossed models
    assert len(np.unique(three[:, 0, 0])) == 6
    new = TrainedRun(refitted.path, "cpu")
    assert np.allclose(new.score(volume), three.mean(axis=0))
    assert not np.allclose(new.score(volume), TrainedRun(plain.path, "cpu").score(volume))


def test_its_stored_logits_check_the_weights_when_the_code_has_changed(refitted: RunFolder) -> None:
    folder, pixels = refitted["embed"] / f"fold{LAST}", PixelCache(refitted["cache"])
    table = read_table(folder / "check.parquet", LOGITS)
    assert table["study"].n_unique() == 3
    assert embed._reproduces(REFIT, CPU, pixels, folder) is None
    try:
        replace_table(table.with_columns(pl.col(CLASSES) + 0.1), folder / "check.parquet", LOGITS)
        assert embed._reproduces(REFIT, CPU, pixels, folder)
    finally:
        replace_table(table, folder / "check.parquet", LOGITS)


def test_without_held_out_patients_it_embeds_no_study(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    tiny_cache(tmp_path / "2_cache")
    embed.run(REFIT, CPU, run)
    sequence.run(SEQUENCE, CPU, run)
    stack.run(STACK, CPU, run)
    vectors = np.load(run["embed"] / f"fold{LAST}" / "vectors.npy")
    assert len(vectors) == 0
    score = TrainedRun(tmp_path, "cpu").score(Volume("x", np.zeros((3, 32, 32), np.int16), np.arange(3.0)))
    assert np.isfinite(score).all()


def test_folds_of_a_run_without_it_stay_valid(plain: RunFolder) -> None:
    assert "refit" not in read_manifest(plain["embed"]).config


def test_a_sequence_model_that_reads_vectors_is_refused() -> None:
    with pytest.raises(UsageError, match=r"needs sequence\.vectors=false"):
        load_config(None, ["embed.refit=true"])
    assert load_config("small", ["embed.refit=true"]).embed.refit
