"""No command deletes or changes a file that it did not write, whatever folder it is given as output."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dicoms import write_set, write_slice
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsna_seq.config import CacheConfig, DataConfig, IndexConfig, SynthConfig
from rsna_seq.context import Context
from rsna_seq.errors import IntegrityError, RsnaSeqError, UsageError
from rsna_seq.imaging.windows import WINDOWS
from rsna_seq.stages import cache, index
from rsna_seq.store import builds
from rsna_seq.store.artifacts import BuildSummary, Key, read_manifest
from rsna_seq.store.builds import ensure
from rsna_seq.store.files import write_text
from rsna_seq.store.outputs import must_be_safe
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.tools import png, synth

NAMES = ("a.txt", "b.txt", "sub/c.txt", "sub/deep/d.txt")
"""Files of the artefact under test."""
STRANGERS = (
    *("thesis.txt", "slices.csv", "sub/mine.txt", ".hidden", "run/1_index/slices.parquet", "sub/deep/d.txt"),
    *("a.txt", "manifest.json.bak", ".a.txt.7.part.txt", "journal.jsonl.old"),
)
"""Files that a user may have there."""


def tree(top: Path) -> dict[str, str]:
    """Every file and link below a folder with its content or target."""
    found = {}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = Path(folder) / name
            if path.is_symlink():
                found[str(path)] = "-> " + str(path.readlink())
            elif path.is_file():
                found[str(path)] = path.read_bytes().hex()
    return found


def make(out: Path, names: tuple[str, ...], size: int, *, rebuild: bool = False, die: bool = False) -> None:
    """Build an artefact of some files, or be interrupted in the middle of it."""

    def build(folder: Path) -> BuildSummary:
        for at, name in enumerate(names):
            if die and at == len(names) - 1:
                raise KeyboardInterrupt
            write_text(folder / name, f"{name} {size}")
        return BuildSummary({"files": len(names)}, {})

    ensure(out, Key("stage", {"size": size}, {}, "code"), build, rebuild=rebuild)


STEP = st.tuples(
    st.sampled_from(["make", "rebuild", "die", "stranger", "link", "damage"]),
    st.integers(0, 9),
    st.integers(1, 3),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, min_size=1, max_size=8))
def test_a_build_never_deletes_or_changes_a_file_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, int, int]]
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(builds, "say", lambda *_: None)
    out, outside = tmp_path / "out", tmp_path / "outside"
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(outside, ignore_errors=True)
    outside.mkdir(parents=True)
    (outside / "far.txt").write_text("far", encoding="utf-8")
    theirs: dict[str, str] = tree(outside)
    for kind, number, size in steps:
        path = out / STRANGERS[number]
        if kind in {"stranger", "link"}:
            if not os.path.lexists(path) and not any(p.is_symlink() for p in path.parents):
                path.parent.mkdir(parents=True, exist_ok=True)
                if kind == "link":
                    path.symlink_to(outside)
                else:
                    path.write_text("mine", encoding="utf-8")
                theirs |= {str(path): tree(path.parent)[str(path)]}
        elif kind == "damage" and (out / "manifest.json").exists():
            with (out / "manifest.json").open("r+b") as file:
                file.seek(100)
                file.write(b"~")
        else:
            names = NAMES[: 1 + number % 4]
            with contextlib.suppress(RsnaSeqError, KeyboardInterrupt):
                make(out, names, size, rebuild=kind == "rebuild", die=kind == "die")
        now = tree(tmp_path)
        assert {path: now.get(path) for path in theirs} == theirs


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "out", NAMES, 1)
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    manifest = read_manifest(tmp_path / "out")
    forged = manifest.model_copy(update={"files": manifest.files | {"../thesis.txt": "00"}}).sealed()
    (tmp_path / "out" / "manifest.json").write_text(forged.model_dump_json(), encoding="utf-8")
    with pytest.raises(IntegrityError, match="is outside the folder"):
        make(tmp_path / "out", NAMES, 2)
    assert (tmp_path / "thesis.txt").exists()


def test_own_files_are_removed_and_the_rest_of_the_folder_stays(tmp_path: Path) -> None:
    make(tmp_path / "out", NAMES, 1)
    (tmp_path / "out" / "sub" / "mine.txt").write_text("mine", encoding="utf-8")
    make(tmp_path / "out", NAMES[:1], 2)
    left = sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()
    )
    assert left == [".lock", "a.txt", "manifest.json", "sub/mine.txt"]
    assert list(read_manifest(tmp_path / "out").files) == ["a.txt"]


def test_an_interrupted_build_knows_what_it_wrote(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "out", NAMES, 1, die=True)
    (tmp_path / "out" / ".a.txt.99.part").write_text("half", encoding="utf-8")
    make(tmp_path / "out", NAMES[:1], 2)
    left = sorted(p.name for p in (tmp_path / "out").rglob("*"))
    assert left == [".lock", "a.txt", "manifest.json"]


@pytest.mark.parametrize(
    ("out", "why"),
    [
        ("/", "root or the home"),
        ("home", "root or the home"),
        ("home/..", "root or the home"),
        ("checkout", "checkout"),
        ("data", "contains the input"),
        ("data/inside/deep", "is inside the input"),
        ("above", "contains the input"),
        ("run", "folder of a run"),
        ("run/elsewhere", "is inside the run"),
        ("run/1_index/deep", "results of 'index'"),
        ("run/1_index", "results of 'index'"),
        ("full", "not empty"),
        ("file", "not a folder"),
        ("file/below", "not a folder"),
        ("link", "contains the input"),
    ],
)
def test_a_folder_in_which_something_could_be_lost_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, why: str
) -> None:
    for name in ("home", "data", "checkout/.git", "above/data", "full"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "full" / "thesis.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    ensure(tmp_path / "run" / "1_index", Key("index", {}, {}, ""), lambda _: BuildSummary({}, {}))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=why) as error:
        must_be_safe(tmp_path / out, "predict", [tmp_path / "data", tmp_path / "above" / "data"])
    assert "nothing was changed" in str(error.value)
    assert tree(tmp_path) == before


def test_parts_of_a_run_may_lie_in_it(tmp_path: Path) -> None:
    ensure(tmp_path / "run" / "1_index", Key("index", {}, {}, ""), lambda _: BuildSummary({}, {}))
    ensure(tmp_path / "run" / "3_embed", Key("embed", {}, {}, ""), lambda _: BuildSummary({}, {}))
    for name, kind in {
        "7_predict": "predict",
        "8_unseen": "predict",
        "phantoms": "synth",
        "2_cache": "cache",
    }.items():
        must_be_safe(tmp_path / "run" / name, kind, [tmp_path / "run"])
    must_be_safe(tmp_path / "run" / "3_embed" / "fold0", "embed", [tmp_path / "run"])


SMALL = IndexConfig(folds=2, cross_folds=2)


class At(RunFolder):
    """A run of which one stage lies elsewhere."""

    def __init__(self, path: Path, **elsewhere: Path) -> None:
        super().__init__(path)
        object.__setattr__(self, "elsewhere", elsewhere)

    def __getitem__(self, stage: str) -> Path:
        return self.elsewhere.get(stage) or super().__getitem__(stage)  # type: ignore[attr-defined]


Write = Callable[[Path, Path], object]
COMMANDS: dict[str, Write] = {
    "index": lambda data, out: index.run(
        SMALL, Context(data=DataConfig(root=data)), At(data.parent / "other", index=out)
    ),
    "cache": lambda data, out: cache.run(
        CacheConfig(size=32), Context(data=DataConfig(root=data)), At(data.parent / "other", cache=out)
    ),
    "png": lambda data, out: png.run(data, out, windows=(WINDOWS["brain"],)),
    "synth": lambda _, out: synth.run(
        SynthConfig(studies=1, test_studies=0, matrix=64, damage=False), out, seed=0, workers=1
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["data", ".", "results", "data/below"])
def test_no_command_takes_a_folder_with_other_files(tmp_path: Path, command: str, place: str) -> None:
    write_slice(tmp_path / "data", "ID_a")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "thesis.txt").write_text("mine", encoding="utf-8")
    COMMANDS["index"](tmp_path / "data", tmp_path / "other" / "1_index")
    before = tree(tmp_path)
    if not (command == "synth" and place == "data/below"):  # it reads nothing
        with pytest.raises(UsageError, match=r"refused: .*nothing was changed"):
            COMMANDS[command](tmp_path / "data", tmp_path / place)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_under_the_name_of_a_result_is_not_overwritten(tmp_path: Path, command: str) -> None:
    write_set(tmp_path / "data", studies=3, slices=3, test_studies=0)
    COMMANDS["index"](tmp_path / "data", tmp_path / "other" / "1_index")
    COMMANDS[command](tmp_path / "data", tmp_path / "first")
    name = next(n for n in read_manifest(tmp_path / "first").files if n.rpartition(".")[2] != "json")
    mine = tmp_path / "second" / name
    ensure(tmp_path / "second", Key(command, {"older": 1}, {}, ""), lambda _: BuildSummary({}, {}))
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="exists, and rsna_seq did not write it"):
        COMMANDS[command](tmp_path / "data", tmp_path / "second")
    assert mine.read_text(encoding="utf-8") == "mine"
