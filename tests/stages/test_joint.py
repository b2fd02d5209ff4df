"""The optional stage on a tiny cache: out of fold, repeatable, resumable, and used by the stages after it."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from builders import replace_table, tiny_cache
from scored import scored_run

from rsna_seq.config import (
    EmbedConfig,
    EvaluateConfig,
    JointConfig,
    SequenceConfig,
    StackConfig,
    load_config,
)
from rsna_seq.context import Context
from rsna_seq.errors import IntegrityError, UsageError
from rsna_seq.labels import CLASSES
from rsna_seq.pipeline import run_stage
from rsna_seq.stages import embed, evaluate, joint, sequence, stack
from rsna_seq.stages.predict.trained import TrainedRun
from rsna_seq.store.artifacts import load_manifest, read_manifest
from rsna_seq.store.files import write_json
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.store.tables import LOGITS, SLABS, read_table

CPU = Context(device="cpu")
EMBED = EmbedConfig(backbone="resnet10t", pretrained=False, epochs=1, batch_size=8)
SEQUENCE = SequenceConfig(epochs=1, batch_size=4, projection_dim=16, hidden=8)
JOINT = JointConfig(epochs=2, frozen_epochs=1, projection_dim=8, hidden=8)
STACK = StackConfig(rounds=5, min_leaf=2)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run with all learned stages; two studies are held out."""
    run = RunFolder(tmp_path_factory.mktemp("run"))
    tiny_cache(run["cache"], studies=10)
    held = pl.col("study").is_in(["S003", "S007"])
    slabs = read_table(run["cache"] / "slabs.parquet", SLABS)
    folds = [pl.when(held).then(-1).otherwise(c).cast(pl.Int16).alias(c) for c in ("fold", "cross_fold")]
    replace_table(slabs.with_columns(folds), run["cache"] / "slabs.parquet", SLABS)
    embed.run(EMBED, CPU, run)
    sequence.run(SEQUENCE, CPU, run)
    joint.run(JOINT, CPU, run)
    stack.run(STACK, CPU, run)
    return run.path


@pytest.fixture
def copy(walked: Path, tmp_path: Path) -> RunFolder:
    """A copy of the run without the stages from ``joint`` on."""
    for stage in ("2_cache", "3_embed", "4_sequence"):
        shutil.copytree(walked / stage, tmp_path / stage)
    return RunFolder(tmp_path)


def test_every_labelled_slice_is_answered_by_the_networks_that_never_saw_it(walked: Path) -> None:
    slabs = PixelCache(walked / "2_cache").slabs
    table = read_table(walked / "4_joint" / "logits.parquet", LOGITS)
    table = table.join(slabs, on=["study", "slab"], suffix="_y")
    seen, held = table.filter(pl.col("fold") >= 0), table.filter(pl.col("fold") < 0)
    assert len(seen) == len(slabs.filter(pl.col("fold") >= 0))
    assert (seen["net"] == seen["fold"]).all()
    assert (table["cross"] == -1).all()
    assert held.group_by("study", "slab").len()["len"].unique().to_list() == [2]
    assert np.isfinite(table.select(CLASSES).to_numpy()).all()


def test_flipped_labels_of_a_fold_leave_its_own_predictions_untouched(walked: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    shutil.copytree(walked / "2_cache", run["cache"])
    slabs = PixelCache(run["cache"]).slabs
    flip = [
        pl.when(pl.col("fold") == 0).then(1 - pl.col(c)).otherwise(pl.col(c)).cast(pl.Int8).alias(c)
        for c in CLASSES
    ]
    replace_table(slabs.with_columns(flip), run["cache"] / "slabs.parquet", SLABS)
    embed.run(EMBED, CPU, run)
    joint.run(JOINT, CPU, run)
    for fold, same in ((0, True), (1, False)):
        mine, theirs = (r / "4_joint" / f"fold{fold}" / "logits.parquet" for r in (run.path, walked))
        assert (mine.read_bytes() == theirs.read_bytes()) == same


def test_both_phases_train_what_they_name(walked: Path, copy: RunFolder) -> None:
    cache = PixelCache(copy["cache"])
    start = embed.load(EMBED, copy["embed"], "cpu")[0]
    before = {name: p.detach().clone() for name, p in start.named_parameters()}
    train, none = cache.slabs.filter(pl.col("fold") == 1), cache.slabs.clear()
    model = joint.fit(JOINT, start, cache, train, none, copy.path / "fit", device="cpu")
    assert not torch_equal(before, dict(model.embedder.named_parameters()))
    assert model.correct.weight.abs().sum() > 0
    assert len(json.loads((copy.path / "fit" / "frozen" / "history.json").read_text())) == 1
    assert len(json.loads((copy.path / "fit" / "history.json").read_text())) == 2
    assert not list((copy.path / "fit" / "frozen").glob("*.safetensors"))


def torch_equal(a: dict, b: dict) -> bool:
    return all(bool((a[name] == b[name]).all()) for name in a)


@pytest.mark.parametrize("saves", [1, 2])
def test_a_training_that_was_killed_in_either_phase_resumes(
    walked: Path, copy: RunFolder, monkeypatch: pytest.MonkeyPatch, saves: int
) -> None:
    from rsna_seq.nets import loop

    save, calls = loop._Training.save, []

    def save_then_die(self: loop._Training, folder: Path, *, better: bool) -> None:
        save(self, folder, better=better)
        calls.append(folder.name)
        if len(calls) == saves:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop._Training, "save", save_then_die)
    one = JOINT.model_copy(update={"folds": (0,)})
    with pytest.raises(KeyboardInterrupt):
        joint.run(one, CPU, copy)
    assert calls[-1] == ("frozen", "fold0")[saves - 1]
    monkeypatch.undo()
    assert joint.run(one, CPU, copy) is None
    fold = copy["joint"] / "fold0"
    assert read_manifest(fold).files == read_manifest(walked / "4_joint" / "fold0").files
    with pytest.raises(UsageError, match=r"joint\.folds: there is no fold \[7\]"):
        joint.run(JOINT.model_copy(update={"folds": (7,)}), CPU, copy)


def test_weights_stay_valid_where_only_the_code_changes_and_they_give_the_stored_logits(
    walked: Path, copy: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(walked / "4_joint", copy["joint"])
    fold = copy["joint"] / "fold1"
    before = load_manifest(fold)
    other = before.model_copy(update={"source": "other code"}).sealed()
    write_json(fold / "manifest.json", other.model_dump())
    whole = joint.apply
    monkeypatch.setattr(joint, "apply", lambda *a, **k: whole(*a, **k) + 1)
    with pytest.raises(IntegrityError, match="differ by up to 1"):
        joint.run(JOINT, CPU, copy)
    monkeypatch.undo()
    joint.run(JOINT, CPU, copy)
    assert (load_manifest(fold).source, load_manifest(fold).content) == (before.source, before.content)


def test_stack_averages_and_boosts_with_the_logits_of_joint(walked: Path) -> None:
    made = read_manifest(walked / "5_stack")
    assert made.inputs["joint"] == read_manifest(walked / "4_joint").content
    assert "classes averaged with joint" in made.counts
    gates = json.loads((walked / "5_stack" / "gates.json").read_text(encoding="utf-8"))
    assert gates["joint"].keys() == gates["gates"].keys()
    booster = (walked / "5_stack" / "boosters" / "0_any.txt").read_text(encoding="utf-8")
    assert "joint_any" in booster


def test_a_class_in_which_joint_is_perfect_is_averaged_and_a_class_in_which_it_is_wrong_is_not(
    walked: Path, copy: RunFolder
) -> None:
    shutil.copytree(walked / "4_joint", copy["joint"])
    file = copy["joint"] / "logits.parquet"
    table, slabs = read_table(file, LOGITS), PixelCache(copy["cache"]).slabs
    truth = table.select("study", "slab").join(slabs, on=["study", "slab"], maintain_order="left")
    known = [(8 * truth[c] - 4).cast(pl.Float64).alias(c) for c in ("any", "subdural")]
    table = table.with_columns(known).with_columns(-pl.col("subdural"))
    replace_table(table, file, LOGITS)
    stack.run(STACK, CPU, copy)
    gates = json.loads((copy["stack"] / "gates.json").read_text(encoding="utf-8"))["joint"]
    assert gates["-1"]["any"]
    assert not gates["-1"]["subdural"]


def test_predict_uses_the_networks_that_stack_was_fitted_with(walked: Path, copy: RunFolder) -> None:
    """Held-out studies are scored by ``predict`` as by the stages."""
    run, cache = TrainedRun(walked, "cpu"), PixelCache(walked / "2_cache")
    assert list(run.joint) == [0, 1]
    stored = read_table(walked / "5_stack" / "logits.parquet", LOGITS)
    for study in ("S003", "S007"):
        rows = stored.filter(pl.col("study") == study).with_columns(
            pl.col(c).map_batches(lambda z: 1 / (1 + (-z).exp()), return_dtype=pl.Float64) for c in CLASSES
        )
        mean = rows.group_by("slab", maintain_order=True).agg(pl.col(c).mean() for c in CLASSES).sort("slab")
        found = run.score(cache.read(study))
        np.testing.assert_allclose(found, mean.select(CLASSES).to_numpy(), atol=1e-6)


def test_a_stack_without_joint_is_not_changed_by_one_that_is_trained_later(
    walked: Path, copy: RunFolder
) -> None:
    stack.run(STACK, CPU, copy)
    made = read_manifest(copy["stack"])
    assert made.config["sources"] == ["cnn", "seq"]
    assert "joint_weight" not in made.config
    assert "joint" not in made.inputs
    shutil.copytree(walked / "4_joint", copy["joint"])
    assert TrainedRun(copy.path, "cpu").joint == {}
    with pytest.raises(IntegrityError, match=r"input joint changed .* use --rebuild"):
        stack.run(STACK, CPU, copy)


def test_joint_as_the_only_source_needs_the_stage(copy: RunFolder) -> None:
    with pytest.raises(UsageError, match="joint is not finished"):
        stack.run(STACK.model_copy(update={"sources": ("joint",)}), CPU, copy)


def test_the_networks_of_another_joint_are_refused(walked: Path, copy: RunFolder) -> None:
    for stage in ("4_joint", "5_stack"):
        shutil.copytree(walked / stage, copy.path / stage)
    other = JOINT.model_copy(update={"lr": 0.01})
    with pytest.raises(IntegrityError, match="config lr"):
        joint.run(other, CPU, copy)
    table = read_table(copy["joint"] / "logits.parquet", LOGITS)
    replace_table(table.with_columns(pl.col("any") + 1), copy["joint"] / "logits.parquet", LOGITS)
    with pytest.raises(IntegrityError, match="a different joint"):
        TrainedRun(copy.path, "cpu")


def test_run_leaves_joint_out_unless_it_is_enabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rsna_seq import pipeline

    ran: list[str] = []
    monkeypatch.setattr(pipeline, "run_stage", lambda stage, *a, **k: ran.append(stage))
    monkeypatch.setattr(RunFolder, "is_finished", lambda *a: True)
    root = f"data.root={tmp_path}"
    (tmp_path / "stage_2_train").mkdir()
    plain = ["index", "cache", "embed", "sequence", "stack", "evaluate"]
    for words, stages in (([], plain), (["joint.enabled=true"], [*plain[:4], "joint", *plain[4:]])):
        ran.clear()
        pipeline.run_all(load_config(None, [root, *words]), tmp_path / "run")
        assert ran == stages
    monkeypatch.undo()
    with pytest.raises(IntegrityError, match="no complete artefact"):
        run_stage("joint", load_config(None, ["device=cpu"]), tmp_path / "run")


@pytest.mark.parametrize("later", [("4_sequence", "5_stack"), ()])
def test_evaluate_scores_joint_where_it_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: tuple[str, ...]
) -> None:
    monkeypatch.setattr(evaluate, "write_run_report", lambda *_: None)
    run = scored_run(tmp_path, studies=9, held_out=0, stages=("3_embed", "4_joint", *later))
    evaluate.run(EvaluateConfig(bootstrap=50, strips=0), CPU, RunFolder(run))
    models = json.loads((run / "6_evaluate" / "metrics.json").read_text(encoding="utf-8"))["models"]
    whole = ["prior", "cnn", "smoothed", "sequence", "joint", "stack", "calibrated"]
    assert list(models) == (whole if later else [*whole[:3], "joint"])
    assert models["joint"]["log_loss"] < models["cnn"]["log_loss"]
    assert "joint" in read_manifest(run / "6_evaluate").inputs
