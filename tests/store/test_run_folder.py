"""A run's folder: stages by name, and stages that do not belong together are refused."""

from pathlib import Path

import pytest

from rsna_seq.errors import IntegrityError
from rsna_seq.store.artifacts import BuildSummary, Key, read_manifest
from rsna_seq.store.builds import ensure
from rsna_seq.store.files import write_text
from rsna_seq.store.run_folder import OPTIONAL, STAGES, RunFolder, must_belong_together, open_folds


def _finish(run: RunFolder, stage: str, content: str = "x", *, parts: tuple[str, ...] = ()) -> None:
    """A finished stage that names the stages before it as its inputs."""
    before = STAGES[: STAGES.index(stage)]
    inputs = {name: read_manifest(run[name]).content for name in before if run.is_finished(name)}
    inputs |= {part: read_manifest(run[stage] / part).content for part in parts}
    _write(run[stage], stage, content, inputs)


def _write(folder: Path, stage: str, content: str, inputs: dict[str, str] | None = None) -> None:
    def build(out: Path) -> BuildSummary:
        write_text(out / "made.txt", content)
        return BuildSummary({}, {})

    ensure(folder, Key(stage, {"content": content}, inputs or {}, "code"), build, rebuild=True)


def test_a_stage_is_found_by_its_name(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    assert [run[stage].name.split("_", 1)[1] for stage in STAGES] == list(STAGES)
    mandatory = [stage for stage in STAGES if stage not in OPTIONAL]
    assert [run[stage].name for stage in mandatory] == [f"{i + 1}_{s}" for i, s in enumerate(mandatory)]
    assert len({run[stage] for stage in STAGES}) == len(STAGES)
    with pytest.raises(KeyError):
        run["3_embed"]


def test_stages_that_belong_together_are_opened(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for stage in STAGES[:6]:
        _finish(run, stage)
    assert list(run.open("cache", "stack")) == ["cache", "stack"]
    with pytest.raises(IntegrityError, match="no complete artefact"):
        run.open("evaluate")


@pytest.mark.parametrize("changed", ["index", "cache", "embed", "sequence", "joint"])
def test_a_stage_that_was_rebuilt_makes_the_later_ones_strangers(tmp_path: Path, changed: str) -> None:
    run = RunFolder(tmp_path)
    for stage in STAGES[:6]:
        _finish(run, stage)
    _finish(run, changed, "another content")
    with pytest.raises(
        IntegrityError, match=rf"built from a different {changed} than the one in .*{changed}"
    ):
        run.open("cache", "embed", "sequence", "stack")


def test_a_fold_that_was_trained_again_is_not_the_one_that_was_joined(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for fold in ("fold0", "fold1", "fold10"):
        _write(run["embed"] / fold, f"embed {fold[4:]}", fold)
    _finish(run, "embed", parts=("fold0", "fold1", "fold10"))
    assert list(open_folds(run["embed"])) == [0, 1, 10]
    _write(run["embed"] / "fold1", "embed 1", "trained again")
    with pytest.raises(IntegrityError, match="a different fold1"):
        open_folds(run["embed"])


def test_nothing_is_compared_that_is_not_there() -> None:
    must_belong_together({})
