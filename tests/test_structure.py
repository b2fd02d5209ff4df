"""The structure of the package: imports go down, files stay short, every shipped config loads."""

import ast
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from import_modules import IMPORTS
from service_modules import SERVICE

from rsna_seq.config import Config, dump_config, load_config
from rsna_seq.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "rsna_seq"
MODULES = sorted(PACKAGE.rglob("*.py"))
ORDER = (
    *(
        "errors",
        "reasons",
        "labels",
        "spacing",
        "arrays",
        "terminal",
        "settings",
        "config",
        "context",
        "console",
        "folds",
        "models",
    ),
    *(
        "parallel",
        "imaging",
        "store",
        "scoring",
        "datasets",
        "stacking",
        "nets",
        "phantom",
        "clinic",
        "report",
        "stages",
        "service",
    ),
    *("tools", "pipeline", "__main__"),
)
"""Rooms and root modules from below: a module imports only what stands before its own room, or in it."""
PUBLIC = "__init__"
"""The package's front names are of every rank."""


def _modules() -> dict[str, Path]:
    """Modules by dotted name below the package; a room's ``__init__`` by the room's name."""
    found = {}
    for file in MODULES:
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == PUBLIC and len(parts) > 1 else parts)] = file
    return found


def _imports(file: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it, by dotted name below the package."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
        elif isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
    known = _modules()
    below = {name.removeprefix("rsna_seq.") for name in names if name.startswith("rsna_seq.")}
    return {name for name in below if name in known}


def test_every_room_has_a_rank_and_every_rank_a_room() -> None:
    assert {name.split(".")[0] for name in _modules()} - {PUBLIC} == set(ORDER)


@pytest.mark.parametrize("name", [name for name in _modules() if name != PUBLIC])
def test_imports_go_down_and_stages_meet_through_files(name: str) -> None:
    own = ORDER.index(name.split(".", maxsplit=1)[0])
    for target in _imports(_modules()[name]) - {name}:
        assert ORDER.index(target.split(".")[0]) <= own, f"{name} imports {target}, which stands above it"
        parts, theirs = name.split("."), target.split(".")
        if parts[0] == theirs[0] == "stages" and len(parts) > 1 and len(theirs) > 1:
            assert parts[1] in {"predict", theirs[1]}, f"the stage {name} imports the stage {target}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: _imports(file) - {name} for name, file in _modules().items() if name != PUBLIC}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for target in graph.get(name, ()):
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_files_and_functions_stay_short(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node) is not None
            start = node.body[1 if documented and len(node.body) > 1 else 0].lineno
            assert (node.end_lineno or 0) - start < 40, f"{file.name}:{node.name}"


_OPENERS = {"open", "os.open", "os.readv", "os.preadv", "mmap.mmap", "zipfile.ZipFile", "ZipFile"}
_OPENERS |= {"dcmread", "pydicom.dcmread", "np.fromfile", "np.memmap"}
_NO_INPUT = {"os.open(os.devnull, os.O_RDWR)", "open('/proc/self/statm', encoding='ascii')"}


def test_files_beside_the_package_stay_short() -> None:
    files = [file for room in ("tests", "benchmarks", "docs", ".ci") for file in (ROOT / room).rglob("*.py")]
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {file: length for file, length in lengths.items() if length > 300} == {}


def test_one_module_opens_input_files() -> None:
    found = {
        (name, ast.unparse(node))
        for name, file in _modules().items()
        if name.startswith("imaging.")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and (
            ast.unparse(node.func) in _OPENERS or ast.unparse(node.func).endswith((".read_bytes", ".fdopen"))
        )
    }
    assert {name for name, call in found if call not in _NO_INPUT} == {"imaging.reading"}


def test_every_shipped_config_loads_and_all_are_counted() -> None:
    shipped = sorted((ROOT / "configs").glob("*.yaml"))
    assert [f.stem for f in shipped] == ["base", "bench", "demo", "packaged", "small", "start"]
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
    source = tmp_path / "source"  # setuptools would put the modules of an earlier build/lib into the wheel
    shutil.copytree(PACKAGE, source / "rsna_seq", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    build = [sys.executable, "-m", "pip", "wheel", *options, str(source)]
    subprocess.run(build, check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    ours = {
        f.relative_to(ROOT).as_posix()
        for f in PACKAGE.rglob("*")
        if f.is_file() and "__pycache__" not in f.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == ours


TESTED_ELSEWHERE = {
    "arrays": "sigmoid and type names: through every stage",
    "console": "through the output of every command (tests/test_cli.py)",
    "context": "through every stage",
    "errors": "exit codes: tests/test_cli.py",
    "labels": "constants: tests/scoring/test_metric.py",
    "spacing": "a constant: tests/phantom/test_render.py and tests/nets/test_sequence_model.py",
    "pipeline": "tests/test_pipeline.py and tests/stages/predict/test_run.py",
    "reasons": "tests/corpus",
    "__main__": "tests/test_cli.py",
    "scoring.baselines": "tests/stages/test_evaluate.py",
    "scoring.scores": "tests/stages/test_evaluate.py",
    "stages.predict.inputs": "tests/stages/predict/test_run.py",
    "scoring.training_studies": "tests/scoring/test_novelty.py and tests/stages/test_learned.py",
    "stacking.features": "tests/stages/test_learned.py, and against pandas in tests/benchmarks",
    "stacking.gates": "tests/stages/test_learned.py and tests/test_canaries.py",
    "stacking.stacker": "tests/stages/test_learned.py and tests/stages/test_joint.py",
    "store.by_fold": "tests/test_pipeline.py, tests/stages/test_learned.py and tests/stages/test_joint.py",
    "stages.embed": "tests/stages/test_learned.py, for the learned stages share one run",
    "stages.sequence": "tests/stages/test_learned.py",
    "stages.stack": "tests/stages/test_learned.py",
    "stages.predict.library": "tests/stages/predict/test_run.py, for they share one run",
    "stages.predict.scoring": "tests/stages/predict/test_run.py",
    "stages.predict.trained": "tests/stages/predict/test_run.py",
    "datasets.rsna2019.layout": "tests/stages/test_index.py",
    "store.bundle": "tests/stages/predict/test_bundle.py, for bundles need a finished run",
    "store.bundle_content": "tests/stages/predict/test_bundle.py",
    "tools.bundle": "tests/stages/predict/test_bundle.py",
    "tools.commands": "tests/test_cli.py and tests/stages/predict/test_bundle.py",
    "clinic.codes": "tests/clinic/test_structured_report.py",
    "clinic.collect": "tests/clinic/test_results.py",
    "clinic.equipment": "tests/clinic/test_write.py",
    "clinic.extra": "tests/clinic/test_write.py",
    "clinic.sources": "tests/clinic/test_write.py",
    **{f"terminal.{name}": "tests/test_cli.py" for name in ("failures", "paths", "streams")},
    "terminal.summary": "tests/test_json.py",
    "imaging.codec_process": "tests/imaging/test_decoder.py",
    "imaging.codec_server": "tests/imaging/test_decoder.py",
    "imaging.reading": "tests/imaging/test_sources.py and tests/imaging/test_archives.py",
    "imaging.folders": "tests/imaging/test_sources.py",
    "imaging.zip_files": "tests/imaging/test_archives.py",
    "imaging.head": "tests/stages/test_cache.py",
    "imaging.prepare": "tests/stages/test_cache.py",
    "imaging.pixels": "tests/stages/test_cache.py and tests/corpus",
    "imaging.noise": "tests/scoring/test_novelty.py",
    "imaging.passes": "tests/stages/test_index.py",
    "imaging.series": "tests/stages/test_index.py",
    "imaging.neighbours": "tests/stages/test_cache.py",
    "imaging.volume": "tests/stages/test_cache.py",
    "imaging.windows": "tests/tools/test_png.py",
    "nets.batches": "tests/nets/test_batched.py",
    "nets.loss_record": "tests/nets/test_loop.py",
    "nets.optimizer": "tests/nets/test_batched.py and tests/nets/test_loop.py",
    "nets.resume": "tests/nets/test_batched.py and tests/stages/test_learned.py",
    "nets.pretrained": "tests/nets/test_cnn.py",
    "nets.studies": "tests/nets/test_sequence_model.py",
    **(SERVICE | IMPORTS),
    "store.array_file": "tests/store/test_files.py",
    "store.artifacts": "tests/store/test_builds.py",
    "store.pixel_cache": "tests/stages/test_cache.py",
    "store.provenance": "tests/store/test_builds.py",
    "store.shards": "tests/stages/test_cache.py",
    "store.slabs": "tests/stages/test_cache.py",
    "store.tables": "tests/stages",
    "phantom.studies": "tests/phantom/test_synth.py",
    "tools.synth": "tests/phantom/test_synth.py",
    "report.canvas": "tests/report/test_page.py",
    "report.figures": "tests/report/test_page.py",
    "report.run": "tests/stages/test_evaluate.py",
    "report.strip": "tests/report/test_page.py",
    "report.study": "tests/report/test_prediction.py",
    **dict.fromkeys(
        (f"imaging.headers.{name}" for name in ("batch", "checks", "fields", "frame", "single", "walk")),
        "tests/imaging/test_both_ways.py holds both readers to one law; tests/corpus",
    ),
    **dict.fromkeys(
        (f"settings.{name}" for name in ("data", "faults", "models", "service", "types", "yaml_file")),
        "tests/test_config.py",
    ),
    **dict.fromkeys(
        ("bleeds", "brain", "clots", "fields", "noise", "patient", "scanner", "skull", "tissue"),
        "tests/phantom/test_render.py",
    ),
}
"""Modules without a test file of their own, and where they are tested."""


def test_every_module_has_its_test_file_or_a_reason() -> None:
    tests = Path(__file__).parent
    missing = set()
    for name, file in _modules().items():
        *rooms, last = name.split(".")
        own = tests.joinpath(*rooms, f"test_{last}.py")
        known = name in TESTED_ELSEWHERE or (rooms == ["phantom"] and last in TESTED_ELSEWHERE)
        if file.name != "__init__.py" and name != PUBLIC and not own.is_file() and not known:
            missing.add(name)
    assert missing == set(), "each needs a test file, or an entry in TESTED_ELSEWHERE"
    reasons = {key for key in TESTED_ELSEWHERE if "." in key}
    assert reasons <= set(_modules()), "TESTED_ELSEWHERE names modules that are gone"
