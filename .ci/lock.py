"""Print constraints.txt: the versions in this environment of what ``rsna_seq`` and its tests need.

1. The requirements of ``rsna-seq`` and its extras ``dev`` and ``docs`` are followed recursively.
2. Each package that is found is written as ``name==version``, without a local label such as ``+cpu``; as
   ``name<=version`` where that version does not run on the oldest Python that is supported (3.11.0).
3. torch and what follows from it are not pinned: see ``HEADER``.
"""

import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = "rsna-seq"
EXTRAS = ("dev", "docs")
RANGES = ("torch", "torchvision")
FOLLOW_TORCH = ("nvidia-", "cuda-", "triton")
HEADER = """\
# Versions with which `make test` passed. `make` installs with them; `make lock` writes this file.
# torch and torchvision are ranges, from the lowest version that pyproject.toml allows to the minor version
# that was tested: machines need different builds and versions of them (CPU, CUDA, ROCm). The packages that
# only torch requires (nvidia-*, cuda-*, triton) are left out: each build of torch has its own versions."""


def closure() -> dict[str, Version]:
    """All packages that the root and its extras need here, by canonical name."""
    offered = metadata.metadata(ROOT).get_all("Provides-Extra") or []
    waiting = [(ROOT, extra) for extra in ("", *EXTRAS) if not extra or extra in offered]
    seen, found = set(waiting), {}
    while waiting:
        name, extra = waiting.pop()
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            sys.exit(f"{name} is not installed in this environment: run `make test` first")
        found[name] = Version(package.version)
        for line in package.requires or []:
            need = Requirement(line)
            if need.marker and not need.marker.evaluate({"extra": extra}):
                continue
            more = [(canonicalize_name(need.name), wanted) for wanted in ("", *need.extras)]
            waiting += [pair for pair in more if pair not in seen]
            seen.update(more)
    return found


def lowest(name: str) -> str:
    """The lower bound that the root declares for a package."""
    needs = [Requirement(line) for line in metadata.requires(ROOT) or []]
    bounds = [s for need in needs if canonicalize_name(need.name) == name for s in need.specifier]
    return next(str(bound) for bound in bounds if bound.operator == ">=")


def constraint(name: str, version: Version) -> str | None:
    """One line of the file, or None for what is left out."""
    if name == ROOT or name.startswith(FOLLOW_TORCH):
        return None
    if name in RANGES:
        return f"{name}{lowest(name)},<{version.major}.{version.minor + 1}"
    oldest = Version(next(iter(SpecifierSet(metadata.metadata(ROOT)["Requires-Python"]))).version)
    supported = SpecifierSet(metadata.metadata(name).get("Requires-Python", "")).contains(oldest)
    return f"{name}{'==' if supported else '<='}{version.public}"


if __name__ == "__main__":
    lines = [constraint(name, version) for name, version in sorted(closure().items())]
    print("\n".join([HEADER, *(line for line in lines if line)]))
