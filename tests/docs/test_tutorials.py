"""Every code block of ``docs/`` is executed in order, in one folder: tutorials first, then all other pages.

Blocks of the README are executed by ``tests/test_readme.py``, and nowhere else. Nothing is replaced here: the
pages state settings that take seconds. A ``yaml`` block with a title is saved under it; ``sh`` blocks hold
commands of this package; the ``python`` blocks of a page share their names.
"""

import re
import sys
from pathlib import Path

import polars as pl
import pytest
from pages import DOCS, Block, blocks_of

import rsna_seq

TUTORIALS = [
    f"tutorials/{name}.md" for name in ("train_on_phantoms", "score_your_study", "own_labels", "bundles")
]
"""In the order in which a reader follows them: each uses the files of those before."""
OTHERS = sorted({path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - set(TUTORIALS))
PAGES = [page for page in (*TUTORIALS, *OTHERS) if blocks_of(page)]
NOT_RUN = {
    "pip install .": "the tests run in an environment that was made so",
    "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu": "needs a network",
    "make demo": "takes minutes; the commands that it runs are tested one by one",
    "rsna-seq demo --out runs/demo": "takes minutes; the tutorials run its stages",
    "rsna-seq serve --out out/service": "runs until it is told to stop; tests/service/test_serve.py runs it",
}
"""Commands that are not run, and why."""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The empty folder in which a reader works."""
    return tmp_path_factory.mktemp("docs")


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run_in_order(page: str, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reader)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.kind == "yaml" and block.title:
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.kind == "sh":
            for words in block.commands():
                _run(words, block, monkeypatch)
        elif block.kind in {"ini", "json"}:
            continue  # files of other programs: tests/docs/test_service_files.py reads them
        elif block.kind == "python":
            exec(compile("\n" * block.line + block.text, str(DOCS / page), "exec"), names)
        else:
            pytest.fail(f"{block}: say in this test what is done with a {block.kind!r} block")


def _run(words: list[str], block: Block, patch: pytest.MonkeyPatch) -> None:
    """Run a command here, for a process takes seconds to import torch; it must end with exit code 0."""
    from rsna_seq.__main__ import main

    if " ".join(words) in NOT_RUN:
        return
    assert words[0] == "rsna-seq", f"{block}: {words}: run it here, or say in NOT_RUN why not"
    patch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code, f"{block}: {' '.join(words)} ended with exit code {end.value.code}"


def test_the_exceptions_are_still_on_the_pages() -> None:
    commands = {
        " ".join(words)
        for page in PAGES
        for block in blocks_of(page)
        if block.kind == "sh"
        for words in block.commands()
    }
    assert set(NOT_RUN) <= commands


TABLES = {
    "stages/1_index.md": ["1_index/slices.parquet", "1_index/studies.parquet", "1_index/quarantine.parquet"],
    "stages/2_cache.md": ["2_cache/slabs.parquet"],
    "stages/3_embed.md": ["3_embed/logits.parquet", "3_embed/fold0/logits.parquet"],
    "stages/4_sequence.md": ["4_sequence/logits.parquet"],
    "stages/4_joint.md": ["4_joint/logits.parquet", "4_joint/fold0/logits.parquet"],
    "stages/5_stack.md": ["5_stack/logits.parquet"],
    "stages/7_predict.md": ["7_predict/slices.csv", "7_predict/studies.csv"],
}
"""Tables of a run, and the page that describes their columns."""


@pytest.mark.parametrize("page", TABLES)
def test_every_column_is_described(page: str, reader: Path) -> None:
    described = set(re.findall(r"`([^`]+)`", (DOCS / page).read_text(encoding="utf-8")))
    for table in TABLES[page]:
        path = reader / "runs" / "phantoms" / table
        columns = (pl.read_csv if path.suffix == ".csv" else pl.read_parquet)(path).columns
        kinds = re.compile("_(z_mm|slice|spread)$")  # of studies.csv: described for the first class
        others = {c for c in columns if kinds.sub("", c) not in rsna_seq.CLASSES}
        assert {c.removesuffix("_percentile") for c in others} <= described, table


@pytest.mark.parametrize(
    "stage", ["1_index", "2_cache", "3_embed", "4_sequence", "4_joint", "5_stack", "6_evaluate"]
)
def test_every_file_of_a_stage_is_described(stage: str, reader: Path) -> None:
    text = (DOCS / "stages" / f"{stage}.md").read_text(encoding="utf-8")
    files = [p for p in (reader / "runs" / "phantoms" / stage).rglob("*") if p.is_file()]
    names = {re.sub(r"_\d+|^\d_\w+", "*", p.name) for p in files if not p.name.startswith(".")}
    known = {re.sub(r"_\d+|^\d_\w+", "*", name) for name in re.findall(r"[\w.]+\.\w+", text)}
    assert names - {"manifest.json"} <= known
