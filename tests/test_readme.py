"""Every code block of the README is run, as printed, on a tiny run.

Only what a reader replaces is replaced here: the folders of the data, and settings that make it quick. The
blocks of the documentation are run by ``tests/docs/test_tutorials.py``, and not here.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from dicoms import head, write_set
from tiny_run import TINY

sys.path.extend(str(Path(__file__).resolve().parent / folder) for folder in ("corpus", "docs"))
from pages import ROOT, Block, blocks_of
from transfer_syntaxes import SYNTAXES, write_encoded

PAGES = ["README.md"]
REPLACED = {
    "data.root=/data/rsna": "data.root=data/rsna",
    "/data/rsna/stage_2_test": "data/rsna/stage_2_test",
    "/data/rsna/stage_2_sample_submission.csv": "data/rsna/stage_2_sample_submission.csv",
    "/data/my_studies": "data/my_studies",
    "/data/studies.zip": "data/studies.zip",
}
"""Paths of the reader's, and what stands for them here; a path that is neither fails."""
QUICK = [*TINY, "embed.size=null", "sequence.seeds=1"]
"""What makes a command quick."""
NOT_RUN = {
    "pip install .": "the tests run in an environment that was made so",
    "make demo": "takes minutes; the commands that it runs are tested one by one",
    "make test": "this test is part of it",
}
"""Lines that are not run, and why."""


class _Place:
    """A path that is neither a string nor a ``pathlib.Path``."""

    def __init__(self, path: object) -> None:
        self._path = str(path)

    def __fspath__(self) -> str:
        return self._path


BLOCKS = [block for page in PAGES for block in blocks_of(page, ROOT)]


COMMANDS = [
    pytest.param(words, id=f"{block}:{' '.join(words)[:60]}")
    for block in BLOCKS
    if block.kind == "sh"
    for words in block.commands()
]
SCRIPTS = [pytest.param(block, id=str(block)) for block in BLOCKS if block.kind == "python"]


def _quick(words: list[str]) -> list[str]:
    """The words of a command with the reader's paths and settings replaced."""
    replaced = [REPLACED.get(word, word) for word in words]
    unknown = [word for word in replaced if word.startswith("/") or "=/" in word]
    assert not unknown, f"{unknown}: name in REPLACED what stands for it in the tests"
    return replaced + (["device=cpu"] if words[1] == "predict" else QUICK)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages name: data, and a run that the README's own command made."""
    place = tmp_path_factory.mktemp("reader")
    (place / "configs").symlink_to(ROOT / "configs")
    write_set(place / "data" / "rsna", studies=4, slices=5, test_studies=1)
    syntaxes = [SYNTAXES[name] for name in ("jpeg_2000", "jpeg_lossless", "rle")]
    for i, syntax in enumerate(syntaxes):  # compressed: they are decoded in a process of its own
        for k in range(4):
            about = {"study": f"ID_u{i}", "patient": f"ID_u{i}", "z": 5.0 * k, "hu": head(5.0 * k)}
            write_encoded(place / "data" / "my_studies", f"ID_u{i}{k}", syntax, **about)
    with zipfile.ZipFile(place / "data" / "studies.zip", "w") as archive:
        for path in sorted((place / "data" / "my_studies").iterdir()):
            archive.write(path, f"studies/{path.name}")
    trains = next(words for param in COMMANDS for words in param.values if words[:2] == ["rsna-seq", "run"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert _run(_quick(trains), patch) == 0  # type: ignore[arg-type]
    for name in ("other", "demo"):
        shutil.copytree(place / "runs" / "base", place / "runs" / name)
    shutil.copytree(place / "data" / "my_studies", place / "runs" / "demo" / "unseen_phantoms")
    return place


def _run(words: list[str], patch: pytest.MonkeyPatch) -> int:
    """Run a command here, for a process takes seconds to import torch: its exit code."""
    from rsna_seq.__main__ import main

    patch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_there_are_blocks_and_all_are_of_known_kinds() -> None:
    assert {block.kind for block in BLOCKS} == {"sh", "python"}, [
        str(block) for block in BLOCKS if block.kind not in {"sh", "python"}
    ]
    fences = sum((ROOT / page).read_text(encoding="utf-8").count("```") for page in PAGES)
    assert fences == 2 * len(BLOCKS)


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_runs(
    words: list[str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if " ".join(words) in NOT_RUN:
        return
    assert words[0] == "rsna-seq", f"{words}: run it here, or say in NOT_RUN why not"
    monkeypatch.chdir(request.getfixturevalue("workspace"))
    assert _run(_quick(words), monkeypatch) == 0
    if "--out" in words and words[1] == "predict":
        answered = pl.read_csv(Path(words[words.index("--out") + 1]) / "slices.csv")
        assert len(answered) == (5 if "--sample" in words else 12)


@pytest.mark.parametrize("block", SCRIPTS)
def test_every_script_runs_as_printed_and_without_a_guard(block: Block, workspace: Path) -> None:
    predicts = 'table = rsna_seq.predict("runs/demo/unseen_phantoms", run)' in block.text
    script = workspace / "script.py"
    script.write_text(
        block.text + ("print(*table.select('slice', 'study').unique().shape)\n" if predicts else ""),
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=workspace,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = "12 2\n" if predicts else ""  # compressed slices: the process that decodes runs no script again
    assert (done.returncode, done.stderr, done.stdout) == (0, "", printed)


def test_the_library_page_predicts() -> None:
    assert any("rsna_seq.predict(" in block.text for param in SCRIPTS for block in param.values)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [str, Path, _Place])
def test_every_path_may_be_a_string(workspace: Path, kind: Callable[[object], object]) -> None:
    import rsna_seq

    run = kind(workspace / "runs" / "demo")
    assert len(rsna_seq.read_index(run)) == 20
    assert len(rsna_seq.PixelCache(kind(workspace / "runs" / "demo" / "2_cache"))) == 4
    assert rsna_seq.load_config(kind(ROOT / "configs" / "demo.yaml")) != rsna_seq.Config()
    trained = rsna_seq.TrainedRun(run, device="cpu")
    assert len(rsna_seq.predict(kind(workspace / "data" / "my_studies"), trained)) == 12
