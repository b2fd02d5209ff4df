"""The code that built an artefact: version, commit, and digests of code and files."""

import ast
import hashlib
import importlib.util
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from blake3 import blake3

_BLOCK = 1 << 20


def source_digest(module: str) -> str:
    """Digest of a module's code and of all ``rsna_seq`` code that it imports, without comments.

    Args:
        module: Dotted name, such as ``rsna_seq.stages.embed``.
    """
    sources: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in sources or name in _NO_RESULT:
            continue
        sources[name], imported = _normalised(name)
        waiting += imported
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()


_NO_RESULT = frozenset(
    f"rsna_seq.{name}"
    for name in (
        *(
            "config",
            "console",
            "errors",
            "reasons",
            "settings.service",
            "settings.types",
            "settings.yaml_file",
        ),
        *(
            f"store.{name}"
            for name in ("artifacts", "builds", "files", "outputs", "provenance", "run_folder")
        ),
        *(f"terminal.{name}" for name in ("failures", "paths", "streams")),
    )
)
"""Modules that cannot change a result: their effect is part of the key's config, or they only print."""


@cache
def _normalised(name: str) -> tuple[str, tuple[str, ...]]:
    """Digest of one module without comments and docstrings, and the ``rsna_seq`` modules it imports."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, name
    assert spec.origin is not None, name
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    imported: list[str] = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            node.value.value = ""
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("rsna_seq"):
            imported += [node.module]
            imported += [
                f"{node.module}.{a.name}" for a in node.names if _is_module(f"{node.module}.{a.name}")
            ]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(m for m in imported if m != "rsna_seq")


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def package_version() -> str:
    """The installed version; ``0`` for a checkout that is not installed."""
    try:
        return version("rsna-seq")
    except PackageNotFoundError:
        return "0"


def commit() -> str | None:
    """The commit of a checkout, read from ``.git``; None for an installed package."""
    git = Path(__file__).parents[2] / ".git"
    try:
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        return (git / head[5:]).read_text(encoding="utf-8").strip() if head.startswith("ref: ") else head
    except OSError:
        return None


def digest_file(path: Path) -> str:
    """BLAKE3 of a file's bytes."""
    digest, buffer = blake3(), memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
