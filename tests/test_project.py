"""The files around the package agree: versions, dates, make targets, issue templates, the workflow."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
CONSTRAINTS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [
    Requirement(line)
    for line in PROJECT["dependencies"] + EXTRAS["dev"] + EXTRAS["clinic"] + EXTRAS["serve"] + EXTRAS["nifti"]
]
RANGES = {"torch", "torchvision"}
OLDEST = PROJECT["requires-python"].removeprefix(">=")


def _yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_version_and_date_are_the_same_in_every_file() -> None:
    releases = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", CHANGELOG, re.MULTILINE)
    cited = _yaml("CITATION.cff")
    assert releases[0] == (PROJECT["version"], str(cited["date-released"]))
    assert cited["version"] == PROJECT["version"]
    assert cited["license"] == PROJECT["license"]
    assert [Version(v) for v, _ in releases] == sorted((Version(v) for v, _ in releases), reverse=True)


def test_every_heading_of_the_changelog_is_one_of_keep_a_changelog() -> None:
    assert "## [Unreleased]" in CHANGELOG
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)) <= kinds


def test_every_declared_dependency_is_in_the_constraints_within_its_bounds() -> None:
    pinned = {canonicalize_name(c.name): c.specifier for c in CONSTRAINTS}
    missing = {canonicalize_name(d.name) for d in DECLARED} - set(pinned) - {"rsna-seq"}
    assert not missing, "run `make lock`"
    for need in DECLARED:
        if need.name == "rsna-seq" or need.name in RANGES:
            continue
        (pin,) = pinned[canonicalize_name(need.name)]
        assert need.specifier.contains(pin.version), f"{need} does not allow {pin}: run `make lock`"


def test_constraints_let_users_choose_their_build_of_torch() -> None:
    for line in CONSTRAINTS:
        assert not line.name.startswith(("nvidia-", "cuda-", "triton")), line
        assert "+" not in str(line.specifier), line
    for name in RANGES:
        (chosen,) = [c.specifier for c in CONSTRAINTS if c.name == name]
        (declared,) = [d.specifier for d in DECLARED if d.name == name]
        assert {s.operator for s in chosen} == {">=", "<"}
        (low,) = [s.version for s in chosen if s.operator == ">="]
        assert declared == SpecifierSet(f">={low}")
        assert chosen.contains(f"{low}+cpu")


def test_the_lock_holds_what_is_installed_without_local_labels() -> None:
    done = subprocess.run([sys.executable, ROOT / ".ci/lock.py"], capture_output=True, text=True, check=True)
    lines = [Requirement(line) for line in done.stdout.splitlines() if not line.startswith("#")]
    assert len(lines) > 40
    for line in lines:
        assert line.specifier.contains(Version(metadata.version(line.name)).public), line
        needs = SpecifierSet(metadata.metadata(line.name)["Requires-Python"] or "")
        on_oldest = needs.contains(f"{OLDEST}.0")
        assert {s.operator for s in line.specifier} & ({"==", ">="} if on_oldest else {"<="}), line


def test_the_workflow_runs_the_python_versions_of_the_classifiers_and_targets_that_exist() -> None:
    jobs = _yaml(".github/workflows/ci.yml")["jobs"]
    offered = {c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)}
    assert set(jobs["tests"]["strategy"]["matrix"]["python-version"]) == offered
    assert min(offered, key=Version) == OLDEST
    ran = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    asked = {match for line in ran for match in re.findall(r"^make (\S+)", line)}
    assert {"lint", "coverage", "test-lowest"} <= asked
    assert asked <= _targets()


def test_contributing_and_makefile_name_the_same_targets() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)`", guide))
    assert named <= _targets()
    assert _targets() - {"clean"} <= named, "a target that CONTRIBUTING.md does not name"


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda f: f.stem
)
def test_every_issue_form_warns_of_patient_data_and_has_unique_fields(form: Path) -> None:
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    if form.name == "config.yml":
        assert content == {"blank_issues_enabled": False}
        return
    assert {"name", "description", "body"} <= set(content)
    fields = [part["id"] for part in content["body"] if part["type"] != "markdown"]
    assert len(fields) == len(set(fields))
    assert "patient data" in form.read_text(encoding="utf-8").lower()


def _targets() -> set[str]:
    """Targets that the Makefile declares as commands."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    declared = set(phony.split())
    assert all(re.search(rf"^{name}:", text, re.MULTILINE) for name in declared)
    return declared
