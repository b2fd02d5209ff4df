"""Leaks: what must not change when labels change, and what must be refused."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from builders import replace_table, tiny_cache
from dicoms import head, write_set, write_slice

from rsna_seq.config import (
    CacheConfig,
    DataConfig,
    EmbedConfig,
    IndexConfig,
    JointConfig,
    SequenceConfig,
    StackConfig,
)
from rsna_seq.context import Context
from rsna_seq.errors import IntegrityError
from rsna_seq.labels import CLASSES
from rsna_seq.scoring.baselines import prior_of
from rsna_seq.scoring.bootstrap import Bootstrap
from rsna_seq.scoring.metric import slice_losses
from rsna_seq.stages import cache, embed, index, joint, sequence, stack
from rsna_seq.stages.predict.trained import TrainedRun
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.store.tables import LOGITS, SLABS, read_table

CPU = Context(device="cpu")
EMBED = EmbedConfig(backbone="resnet10t", pretrained=False, epochs=3, batch_size=8, lr=3e-3)
SEQUENCE = SequenceConfig(epochs=4, batch_size=4, projection_dim=16, hidden=8)
JOINT = JointConfig(epochs=2, frozen_epochs=1, projection_dim=8, hidden=8)
STACK = StackConfig(rounds=20, min_leaf=2)
STAGES = ("3_embed", "4_sequence", "4_joint", "5_stack")


OVERFITS = EMBED.model_copy(
    update={
        "epochs": 12,
        "dropout": 0,
        "flip_prob": 0,
        "depth_flip": 0,
        "rotate_deg": 0,
        "scale": 0,
        "shift": 0,
    }
    | {"hu_scale": 0, "hu_shift": 0, "hu_noise": 0, "hu_kernel": 0, "erase": 0}
)
"""A network that overfits: it would show a leak of the labels of its own fold."""


def walk(run: Path, embedding: EmbedConfig = EMBED) -> Path:
    """The learned stages."""
    embed.run(embedding, CPU, RunFolder(run))
    sequence.run(SEQUENCE, CPU, RunFolder(run))
    joint.run(JOINT, CPU, RunFolder(run))
    stack.run(STACK, CPU, RunFolder(run))
    return run


def relabelled(run: Path, change: list[pl.Expr] | pl.DataFrame) -> None:
    """Change the table of a run's cache."""
    file = run / "2_cache" / "slabs.parquet"
    slabs = read_table(file, SLABS)
    replace_table(change if isinstance(change, pl.DataFrame) else slabs.with_columns(change), file, SLABS)


def shuffled(slabs: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The labels of each study on another one, slab by slab."""
    studies = slabs["study"].unique(maintain_order=True).to_list()
    others = dict(zip(studies, np.random.default_rng(seed).permutation(studies), strict=True))
    parts = []
    for (study,), rows in slabs.group_by("study", maintain_order=True):
        theirs = slabs.filter(pl.col("study") == others[str(study)]).select(CLASSES)
        at = np.arange(len(rows)) % len(theirs)
        parts.append(rows.with_columns(theirs[at].get_columns()))
    return pl.concat(parts)


def test_with_shuffled_labels_no_model_beats_the_prior(tmp_path: Path) -> None:
    tiny_cache(tmp_path / "2_cache", studies=16)
    slabs = PixelCache(tmp_path / "2_cache").slabs
    relabelled(tmp_path, shuffled(slabs, seed=3))
    walk(tmp_path, OVERFITS)
    slabs = PixelCache(tmp_path / "2_cache").slabs
    truth = slabs.select(CLASSES).to_numpy()
    # the best prediction without pixels; in so small a set the prior of one fold is noise
    prior = np.broadcast_to(np.clip(prior_of(slabs), 1e-4, 1), truth.shape)
    draws = Bootstrap(slabs["patient"].to_numpy().astype(str), 500, 0)
    for stage in STAGES:
        table = read_table(tmp_path / stage / "logits.parquet", LOGITS)
        rows = slabs.select("study", "slab").join(
            table, on=["study", "slab"], how="left", maintain_order="left"
        )
        p = 1 / (1 + np.exp(-rows.select(CLASSES).to_numpy()))
        gain = draws.mean(slice_losses(truth, p) - slice_losses(truth, prior))
        assert gain.high > 0, f"{stage} beats the prior on labels that mean nothing"


def test_with_true_labels_the_cnn_does_beat_the_prior(tmp_path: Path) -> None:
    """The test above can fail: the same networks learn from labels that mean something."""
    tiny_cache(tmp_path / "2_cache", studies=24)
    longer = EMBED.model_copy(update={"epochs": 8, "folds": (0,)})
    embed.run(longer, CPU, RunFolder(tmp_path))
    table = read_table(tmp_path / "3_embed" / "fold0" / "logits.parquet", LOGITS)
    slabs = PixelCache(tmp_path / "2_cache").slabs.filter(pl.col("fold") == 0)
    rows = slabs.select("study", "slab").join(table, on=["study", "slab"], how="left", maintain_order="left")
    p = 1 / (1 + np.exp(-rows.select(CLASSES).to_numpy()))
    truth = slabs.select(CLASSES).to_numpy()
    prior = np.broadcast_to(np.clip(prior_of(slabs), 1e-4, 1), truth.shape)
    gain = slice_losses(truth, p) - slice_losses(truth, prior)
    assert Bootstrap(slabs["patient"].to_numpy().astype(str), 500, 0).mean(gain).high < 0


def test_flipped_labels_of_held_out_patients_change_nothing_anywhere(tmp_path: Path) -> None:
    tiny_cache(tmp_path / "a" / "2_cache", studies=10)
    held = pl.col("study").is_in(["S003", "S007"])
    relabelled(tmp_path / "a", [pl.when(held).then(-1).otherwise(c).cast(pl.Int16).alias(c) for c in FOLDS])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    relabelled(
        tmp_path / "b",
        [pl.when(held).then(1 - pl.col(c)).otherwise(c).cast(pl.Int8).alias(c) for c in CLASSES],
    )
    for name in ("a", "b"):
        walk(tmp_path / name)
    for stage in STAGES:
        a, b = ((tmp_path / name / stage / "logits.parquet").read_bytes() for name in ("a", "b"))
        assert a == b, stage


FOLDS = ("fold", "cross_fold")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("column", FOLDS)
def test_a_patient_cut_by_hand_across_folds_is_refused(tmp_path: Path, stage: str, column: str) -> None:
    tiny_cache(tmp_path / "2_cache")
    first = (pl.col("study") == "S000") & (pl.col("slab") == 0)
    relabelled(
        tmp_path, [pl.when(first).then(1 - pl.col(column)).otherwise(column).cast(pl.Int16).alias(column)]
    )
    with pytest.raises(IntegrityError, match="more than one fold"):
        walk(tmp_path)
    assert not (tmp_path / stage / "manifest.json").exists()


def test_a_study_scores_the_same_in_any_batch_and_in_any_order_of_files(tmp_path: Path) -> None:
    tiny_cache(tmp_path / "2_cache")
    walk(tmp_path)
    run = TrainedRun(tmp_path, "cpu")
    names = np.random.default_rng(0).permutation(8)
    for k in range(8):
        write_slice(tmp_path / "a", f"ID_{k}", study="ID_alone", z=5.0 * k, hu=head(5.0 * k, bleed=k == 3))
        source = tmp_path / "a" / f"ID_{k}.dcm"
        (tmp_path / "b").mkdir(exist_ok=True)
        shutil.copy(source, tmp_path / "b" / f"{names[k]}.dcm")
    write_set(tmp_path / "others", studies=3, test_studies=0)
    shutil.copytree(tmp_path / "a", tmp_path / "c" / "z")
    shutil.copytree(tmp_path / "others" / "stage_2_train", tmp_path / "c" / "a")
    answers = []
    for folder in "abc":
        found = index.scan(tmp_path / folder, IndexConfig())
        study = found.slices.filter(pl.col("study") == "ID_alone")
        assert study["slice"].to_list() == [f"ID_{k}" for k in range(8)]
        volume = cache.apply(study, found.root, CacheConfig(size=32)).volume
        assert volume is not None
        answers.append(run.score(volume))
    for other in answers[1:]:
        np.testing.assert_array_equal(other, answers[0])


def test_pixels_under_two_patients_are_found(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for patient in ("one", "two"):
        for k in range(3):
            hu = head(5.0 * k, bleed=k == 1) + np.random.default_rng(k).integers(0, 9, (64, 64))
            name = f"ID_{patient}{k}"
            write_slice(tmp_path / "d", name, study=f"S_{patient}", patient=patient, z=5.0 * k, hu=hu)
    index.run(IndexConfig(), Context(data=DataConfig(root=tmp_path / "d")), RunFolder(tmp_path))
    made = cache.run(CacheConfig(size=32), Context(data=DataConfig(root=tmp_path / "d")), RunFolder(tmp_path))
    assert made.counts["slices with another patient's pixels"] == 6
    assert "it leaks across folds" in capfd.readouterr().err


def test_patients_that_were_trained_on_are_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from rsna_seq.config import PredictConfig
    from rsna_seq.stages.predict import run as predict

    tiny_cache(tmp_path / "run" / "2_cache")
    walk(tmp_path / "run")
    for i, patient in enumerate(("P-S000", "P-S001", "stranger")):
        for k in range(3):
            write_slice(tmp_path / "d", f"ID_{i}{k}", study=f"T{i}", patient=patient, z=5.0 * k)
    folders, runs = [tmp_path / "d"], [tmp_path / "run"]
    made = predict.run(PredictConfig(), CPU, folders, runs, tmp_path / "out", indexing=IndexConfig())
    assert made.counts["patients also trained on"] == 2
    assert "2 patients are in the training data" in capfd.readouterr().err
