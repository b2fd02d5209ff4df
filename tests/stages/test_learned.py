"""The three learned stages on a tiny cache: out of fold, repeatable, resumable, deleted only by --rebuild."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from builders import replace_table, reseal, tiny_cache

from rsna_seq.config import EmbedConfig, SequenceConfig, StackConfig
from rsna_seq.context import Context
from rsna_seq.errors import IntegrityError
from rsna_seq.labels import CLASSES
from rsna_seq.scoring import training_studies
from rsna_seq.scoring.novelty import Training
from rsna_seq.stacking import stacker
from rsna_seq.stages import embed, sequence, stack
from rsna_seq.store.artifacts import open_artifact, read_manifest
from rsna_seq.store.files import write_json
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.store.tables import LOGITS, SLABS, read_table

CPU = Context(device="cpu")
EMBED = EmbedConfig(backbone="resnet10t", pretrained=False, epochs=2, batch_size=8)
SEQUENCE = SequenceConfig(epochs=2, batch_size=4, projection_dim=16, hidden=8)
STACK = StackConfig(rounds=10, min_leaf=2)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    tiny_cache(run / "2_cache")
    _walk(run)
    return run


def _walk(run: Path) -> None:
    embed.run(EMBED, CPU, RunFolder(run))
    sequence.run(SEQUENCE, CPU, RunFolder(run))
    stack.run(STACK, CPU, RunFolder(run))


def test_every_labelled_slice_is_answered_once_by_the_network_that_never_saw_it(walked: Path) -> None:
    slabs = PixelCache(walked / "2_cache").slabs
    for stage in ("3_embed", "4_sequence", "5_stack"):
        table = read_table(walked / stage / "logits.parquet", LOGITS).join(
            slabs, on=["study", "slab"], suffix="_y"
        )
        assert len(table) == len(slabs)
        assert (table["net"] == table["fold"]).all()
        if stage != "3_embed":
            assert (table["cross"] == table["cross_fold"]).all()


def test_the_same_seed_gives_the_same_bytes(walked: Path, tmp_path: Path) -> None:
    shutil.copytree(walked / "2_cache", tmp_path / "2_cache")
    _walk(tmp_path)
    for stage in ("3_embed", "4_sequence", "5_stack"):
        assert read_manifest(tmp_path / stage).files == read_manifest(walked / stage).files


def test_a_second_call_reuses_what_is_there(walked: Path) -> None:
    before = (walked / "3_embed" / "fold0" / "manifest.json").stat().st_mtime_ns
    _walk(walked)
    assert (walked / "3_embed" / "fold0" / "manifest.json").stat().st_mtime_ns == before


def test_trained_weights_are_kept_without_rebuild(walked: Path, tmp_path: Path) -> None:
    shutil.copytree(walked, tmp_path / "run")
    other = EMBED.model_copy(update={"lr": 0.5})
    with pytest.raises(IntegrityError, match="config lr"):
        embed.run(other, CPU, RunFolder(tmp_path / "run"))
    assert read_manifest(tmp_path / "run" / "3_embed" / "fold0").config["lr"] == EMBED.lr


def test_flipped_labels_of_a_fold_leave_its_own_predictions_untouched(walked: Path, tmp_path: Path) -> None:
    shutil.copytree(walked / "2_cache", tmp_path / "2_cache")
    slabs = PixelCache(walked / "2_cache").slabs
    flip = [
        pl.when(pl.col("fold") == 0).then(1 - pl.col(c)).otherwise(pl.col(c)).cast(pl.Int8).alias(c)
        for c in CLASSES
    ]
    replace_table(slabs.with_columns(flip), tmp_path / "2_cache" / "slabs.parquet", SLABS)
    embed.run(EMBED, CPU, RunFolder(tmp_path))
    mine, theirs = (r / "3_embed" / "fold0" / "logits.parquet" for r in (tmp_path, walked))
    assert mine.read_bytes() == theirs.read_bytes()
    mine, theirs = (r / "3_embed" / "fold1" / "logits.parquet" for r in (tmp_path, walked))
    assert mine.read_bytes() != theirs.read_bytes()


def test_two_epochs_killed_and_two_more_are_four(
    walked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rsna_seq.nets import loop

    four = EMBED.model_copy(update={"epochs": 4})
    whole, cut = (RunFolder(tmp_path / name) for name in ("whole", "cut"))
    for run in (whole, cut):
        shutil.copytree(walked / "2_cache", run["cache"])
    embed.run(four, CPU, whole)
    save, calls = loop._Training.save, []

    def save_then_die(self: loop._Training, folder: Path, *, better: bool) -> None:
        save(self, folder, better=better)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop._Training, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        embed.run(four, CPU, cut)
    monkeypatch.undo()
    embed.run(four, CPU, cut)
    assert read_manifest(cut["embed"]).files == read_manifest(whole["embed"]).files


def test_one_fold_alone_leaves_the_stage_open_and_the_other_closes_it(walked: Path, tmp_path: Path) -> None:
    shutil.copytree(walked / "2_cache", tmp_path / "2_cache")
    for fold in (0, 1):
        only = EMBED.model_copy(update={"folds": (fold,)})
        manifest = embed.run(only, CPU, RunFolder(tmp_path))
        assert (manifest is None) == (fold == 0)
    assert read_manifest(tmp_path / "3_embed").files == read_manifest(walked / "3_embed").files


def test_a_study_is_embedded_the_same_alone_and_after_others(walked: Path) -> None:
    cache = PixelCache(walked / "2_cache")
    net = embed.load(EMBED, walked / "3_embed", "cpu")[0]
    study = cache.slabs.filter(pl.col("fold") == 0)["study"][0]
    table = read_table(walked / "3_embed" / "logits.parquet", LOGITS).filter(pl.col("study") == study)
    np.testing.assert_array_equal(
        embed.apply(net, cache.read(study)).logits, table.select(CLASSES).to_numpy()
    )


def test_the_training_studies_are_recorded_in_the_space_that_left_them_out(walked: Path) -> None:
    slabs, stored = (
        PixelCache(walked / "2_cache").slabs,
        Training.load(open_artifact(walked / "5_stack")).table,
    )
    assert sorted(stored["study"]) == sorted(slabs["study"].unique())
    folds = dict(slabs.group_by("study").agg(pl.col("fold").first()).rows())
    vectors = np.load(walked / "5_stack" / "training_vectors.npy")
    cache, nets = PixelCache(walked / "2_cache"), embed.load(EMBED, walked / "3_embed", "cpu")
    for at, row in enumerate(stored.iter_rows(named=True)):
        assert row["net"] == folds[row["study"]]
        mean = embed.apply(nets[row["net"]], cache.read(row["study"])).vectors.mean(axis=0)
        np.testing.assert_allclose(vectors[at], mean, atol=1e-5)
        assert row["brain_hu"] == pytest.approx(30, abs=1)
        assert row["noise_hu"] == pytest.approx(3 * np.sqrt(8 / 9), rel=0.2)
        assert row["spacing_mm"] == row["largest_gap_mm"] == 5


def test_numbers_that_the_code_no_longer_measures_make_the_stack_stale(
    walked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(walked, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    monkeypatch.setattr(stack, "source_digest", lambda _: "other code")
    before = read_manifest(run["stack"]).files
    stored = open_artifact(run["stack"])
    assert training_studies.training_fault(PixelCache(run["cache"]), stored) is None
    monkeypatch.setattr(training_studies, "brain_noise", lambda *_: 9.0)
    with pytest.raises(
        IntegrityError, match=r"noise_hu of a training study is 9.0, and the stored value [23]"
    ):
        stack.run(STACK, CPU, run)
    assert read_manifest(run["stack"]).files == before


def test_a_stack_of_an_earlier_version_is_refused(walked: Path, tmp_path: Path) -> None:
    shutil.copytree(walked / "5_stack", tmp_path / "5_stack")
    file = tmp_path / "5_stack" / "gates.json"
    saved = json.loads(file.read_text(encoding="utf-8"))
    saved.pop("temperature")
    write_json(file, {**saved, "lines": {}})
    reseal(tmp_path / "5_stack")
    with pytest.raises(IntegrityError, match="earlier version; run the stage stack with --rebuild"):
        stack.load(STACK, tmp_path / "5_stack")


def test_a_temperature_is_used_where_it_helps_and_both_tables_are_kept(walked: Path, tmp_path: Path) -> None:
    """Logits of the sequence model that are four times too large ask for a temperature."""
    shutil.copytree(walked, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    slabs = PixelCache(run["cache"]).slabs
    logits = read_table(run["sequence"] / "logits.parquet", LOGITS)
    truth = logits.select("study", "slab").join(slabs, on=["study", "slab"], maintain_order="left")
    random = np.random.default_rng(0)
    right = 4.0 * truth.select(CLASSES).to_numpy() - 2 + random.normal(0, 2.0, (len(truth), 6))
    wrong = logits.with_columns(pl.Series(c, 4 * right[:, k]) for k, c in enumerate(CLASSES))
    replace_table(wrong, run["sequence"] / "logits.parquet", LOGITS)
    stack.run(STACK, Context(device="cpu", rebuild=True), run)
    temperature = json.loads((run["stack"] / "gates.json").read_text(encoding="utf-8"))["temperature"]
    assert temperature > 1.5
    assert stack.load(STACK, run["stack"])[0].temperature == temperature
    before = read_table(run["stack"] / "uncalibrated.parquet", LOGITS).select(CLASSES).to_numpy()
    after = read_table(run["stack"] / "logits.parquet", LOGITS).select(CLASSES).to_numpy()
    assert (np.ptp(before / after, axis=1) < 1e-9).all()  # one factor for all classes of a row


def test_a_booster_that_was_edited_is_refused(walked: Path, tmp_path: Path) -> None:
    shutil.copytree(walked / "5_stack", tmp_path / "5_stack")
    text = next((tmp_path / "5_stack" / "boosters").glob("*.txt"))
    text.write_text(text.read_text(encoding="utf-8").replace("leaf_value=", "leaf_value=9"), encoding="utf-8")
    with pytest.raises(IntegrityError, match="damaged, its digest"):
        stack.load(STACK, tmp_path / "5_stack")


@pytest.fixture
def by_other_code(walked: Path, tmp_path: Path) -> RunFolder:
    """A run without held-out studies whose boosters were fitted by other code."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(walked, run.path)
    reseal(run["stack"], source="other code")
    return run


def test_boosters_are_checked_on_the_folds_that_they_did_not_learn_from(
    by_other_code: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (PixelCache(by_other_code["cache"]).slabs["fold"] >= 0).all()
    features = stacker.stack_features

    def changed(*args: object) -> pl.DataFrame:
        return features(*args).select(pl.all() * -1)  # type: ignore[arg-type]

    monkeypatch.setattr(stacker, "stack_features", changed)
    with pytest.raises(IntegrityError, match="differ by up to"):
        stack.run(STACK, CPU, by_other_code)
    monkeypatch.undo()
    stack.run(STACK, CPU, by_other_code)
    assert "still give the stored logits" in capsys.readouterr().err
    assert read_manifest(by_other_code["stack"]).earlier_sources == ["other code"]


def test_stored_logits_that_lack_a_row_are_no_check(by_other_code: RunFolder) -> None:
    file = by_other_code["stack"] / "uncalibrated.parquet"
    replace_table(read_table(file, LOGITS)[1:], file, LOGITS)
    with pytest.raises(IntegrityError, match="differ by up to nan"):
        stack.run(STACK, CPU, by_other_code)


def test_boosters_that_no_stored_logit_depends_on_are_not_called_checked(by_other_code: RunFolder) -> None:
    file = by_other_code["stack"] / "gates.json"
    saved = json.loads(file.read_text(encoding="utf-8"))
    assert any(saved["gates"]["-1"].values())
    saved["gates"] |= {str(fold): dict.fromkeys(CLASSES, False) for fold in saved["folds"]}
    file.write_text(json.dumps(saved), encoding="utf-8")
    reseal(by_other_code["stack"])
    with pytest.raises(IntegrityError, match="none can be checked"):
        stack.run(STACK, CPU, by_other_code)
