"""The house keeps its shape: imports go down, files stay short, every shipped config loads."""

import ast
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from rsna_seq.config import Config, dump_config, load_config
from rsna_seq.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "rsna_seq"
MODULES = sorted(PACKAGE.rglob("*.py"))
_RANK = {
    **{"imaging": 1, "nets": 2, "phantom": 2, "stages": 4, "trained": 4, "tools": 4, "pipeline": 5},
    "__main__": 6,
}
"""What may import what: a module imports modules of its own rank or below."""


def _imports(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {
        name
        for node in ast.walk(tree)
        for name in (
            [f"{node.module}.{a.name}" for a in node.names]
            if isinstance(node, ast.ImportFrom) and node.module
            else [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        if name.startswith("rsna_seq.")
    }


def _rank(parts: tuple[str, ...]) -> int:
    return _RANK.get(parts[0].removesuffix(".py"), 3 if parts[0] == "report" else 0)


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_imports_go_down_and_stages_meet_through_files(file: Path) -> None:
    parts = file.relative_to(PACKAGE).parts
    if parts == ("__init__.py",):
        pytest.skip("the package's front names are of every rank")
    for name in _imports(file):
        target = tuple(name.split(".")[1:])
        stage_to_stage = parts[0] == "stages" and target[0] == "stages"
        assert not stage_to_stage or parts[1] == "predict.py", f"{file.name} imports the stage {name}"
        if _rank(parts) >= 1:
            assert _rank(target) <= _rank(parts), f"{'/'.join(parts)} imports {name}, which stands above it"
        else:
            assert _rank(target) <= 3, f"{'/'.join(parts)} imports {name}, which stands above it"


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_files_and_functions_stay_short(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node) is not None
            start = node.body[1 if documented and len(node.body) > 1 else 0].lineno
            assert (node.end_lineno or 0) - start < 40, f"{file.name}:{node.name}"


def test_every_shipped_config_loads_and_all_are_counted() -> None:
    shipped = sorted((ROOT / "configs").glob("*.yaml"))
    assert [f.stem for f in shipped] == ["base", "bench", "demo", "small", "start"]
    for file in shipped:
        assert load_config(file) != Config()


def test_a_printed_config_reads_back_as_itself(tmp_path: Path) -> None:
    config = load_config(ROOT / "configs" / "demo.yaml", ["embed.folds=[1]", "data.root=/some/where"])
    (tmp_path / "whole.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "whole.yaml") == config


def test_unknown_keys_and_wrong_values_are_all_named_at_once() -> None:
    with pytest.raises(UsageError) as error:
        load_config(None, ["embed.epoch=3", "cache.size=big", "seeed=1"])
    assert all(word in str(error.value) for word in ("embed.epoch", "cache.size", "seeed"))


@pytest.mark.parametrize("word", ["epochs", "=3", "embed.epochs.x=1"])
def test_an_override_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        load_config(None, ["embed.epochs=2", word])


def test_help_is_quick_and_imports_no_torch() -> None:
    code = (
        "import sys; sys.argv=['rsna-seq','--help']\n"
        "from rsna_seq.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch','polars','pandas','pydicom'} & set(sys.modules), 'imported'\n"
    )
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        ".",
    ]
    subprocess.run(build, check=True, capture_output=True, cwd=ROOT)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    top = {name.split("/")[0] for name in names}
    assert {t for t in top if not t.endswith(".dist-info")} == {"rsna_seq"}
    ours = {
        f.relative_to(ROOT).as_posix()
        for f in PACKAGE.rglob("*")
        if f.is_file() and "__pycache__" not in f.parts
    }
    assert ours <= set(names)
