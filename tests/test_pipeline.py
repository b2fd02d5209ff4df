"""A run keeps its config; folds of different configs are never joined; trained weights outlive a renaming."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from builders import reseal, tiny_cache

from rsna_seq.config import EmbedConfig, SequenceConfig, StackConfig, load_config
from rsna_seq.context import Context
from rsna_seq.errors import IntegrityError, UsageError
from rsna_seq.pipeline import config_of_run, run_stage
from rsna_seq.stages import embed, sequence, stack
from rsna_seq.store.artifacts import load_manifest
from rsna_seq.store.run_folder import RunFolder

CPU = Context(device="cpu")
EMBED = EmbedConfig(backbone="resnet10t", pretrained=False, epochs=1, batch_size=8)
SEQUENCE = SequenceConfig(epochs=1, batch_size=4, projection_dim=16, hidden=8)
STACK = StackConfig(rounds=5, min_leaf=2)
WORDS = ["device=cpu", "embed.backbone=resnet10t", "embed.pretrained=false", "embed.epochs=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run with all learned stages."""
    run = RunFolder(tmp_path_factory.mktemp("run"))
    tiny_cache(run["cache"])
    embed.run(EMBED, CPU, run)
    sequence.run(SEQUENCE, CPU, run)
    stack.run(STACK, CPU, run)
    return run.path


def test_a_later_command_on_a_run_takes_the_config_that_it_keeps(tmp_path: Path) -> None:
    tiny_cache(tmp_path / "2_cache")
    run_stage("embed", config_of_run(tmp_path, None, [*WORDS, "embed.folds=[0]", "workers=1"]), tmp_path)
    kept = config_of_run(tmp_path, None, ["embed.folds=[1]"])
    assert (kept.embed.backbone, kept.embed.epochs, kept.embed.folds) == ("resnet10t", 1, (1,))
    assert (kept.device, kept.workers) == ("auto", 0)  # they belong to a machine
    run_stage("embed", kept, tmp_path)
    assert RunFolder(tmp_path).is_finished("embed")
    named = tmp_path / "other.yaml"
    named.write_text("embed: {epochs: 7}", encoding="utf-8")
    assert config_of_run(tmp_path, named, []).embed.epochs == 7


def test_a_config_of_the_users_own_is_neither_taken_nor_overwritten(tmp_path: Path) -> None:
    tiny_cache(tmp_path / "2_cache")
    (tmp_path / "config.yaml").write_text("embed: {epochs: 9}\n", encoding="utf-8")
    assert config_of_run(tmp_path, None, []) == load_config()
    with pytest.raises(UsageError, match="rsna_seq did not write it"):
        run_stage("embed", load_config(None, WORDS), tmp_path)
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") == "embed: {epochs: 9}\n"


def test_folds_of_different_configs_are_not_joined(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    tiny_cache(run["cache"])
    assert embed.run(EMBED.model_copy(update={"folds": (0,)}), CPU, run) is None
    other = EMBED.model_copy(update={"folds": (1,), "lr": 0.01})
    with pytest.raises(IntegrityError, match=r"fold0: config lr changed.*embed\.folds=\[0\]"):
        embed.run(other, CPU, run)


Stage = Callable[[RunFolder], object]
STAGES: dict[str, Stage] = {
    "3_embed/fold0": lambda run: embed.run(EMBED, CPU, run),
    "4_sequence": lambda run: sequence.run(SEQUENCE, CPU, run),
}


@pytest.mark.parametrize("folder", STAGES)
def test_weights_that_give_the_stored_logits_stay_valid_when_code_changes(
    trained: Path, tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(trained, run.path)
    before = load_manifest(run.path / folder)
    reseal(run.path / folder, source="other code")
    STAGES[folder](run)
    after = load_manifest(run.path / folder)
    assert (after.source, after.earlier_sources) == (before.source, ["other code"])
    assert after.content == before.content
    assert "still give the stored logits" in capsys.readouterr().err


def test_weights_that_give_other_logits_are_refused_when_code_changes(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(trained, run.path)
    reseal(run["embed"] / "fold0", source="other code")
    whole = embed.apply

    def changed(*args: object, **kwargs: object) -> embed.Embedding:
        found = whole(*args, **kwargs)  # type: ignore[arg-type]
        return found._replace(logits=found.logits + 1)

    monkeypatch.setattr(embed, "apply", changed)
    with pytest.raises(IntegrityError, match="differ by up to 1"):
        embed.run(EMBED, CPU, run)
    monkeypatch.undo()
    embed.run(EMBED, replace(CPU, rebuild=False), run)
