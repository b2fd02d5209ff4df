"""The site is built without a warning, loads nothing from other hosts, and leaves no reference out."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import DOCS, ROOT, blocks_of, pages_in, read_site
from typer.testing import CliRunner

import rsna_seq
from rsna_seq.config import Config, load_config
from rsna_seq.reasons import Reason

GENERATED = {f"reference/{name}.md" for name in ("config", "cli", "codes", "api")}
"""Pages that ``docs/hooks.py`` writes."""
COMPOSE = "compose.yml"
"""A file of another program: tests/docs/test_service_files.py reads it."""


def test_every_page_is_in_the_navigation_and_exists() -> None:
    named = list(pages_in(read_site()["nav"]))
    assert len(named) == len(set(named))
    assert set(named) - GENERATED == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


def test_nothing_generated_is_committed() -> None:
    assert not [page for page in GENERATED if (DOCS / page).exists()]


def test_the_settings_on_the_pages_are_a_config(tmp_path: Path) -> None:
    files = [
        block
        for page in set(pages_in(read_site()["nav"])) - GENERATED
        for block in blocks_of(page)
        if block.kind == "yaml" and block.title != COMPOSE
    ]
    assert files
    for block in files:
        path = tmp_path / "settings.yaml"
        path.write_text(block.text, encoding="utf-8")
        assert load_config(path) != Config(), block


def test_every_key_that_a_page_names_is_in_the_config() -> None:
    sections = {
        name: getattr(field.annotation, "model_fields", {}) for name, field in Config.model_fields.items()
    }
    named = {
        (section, key)
        for page in DOCS.rglob("*.md")
        for section, key in re.findall(
            r"\b([a-z]+)\.([a-z_0-9]+)\b(?=[`= ])", page.read_text(encoding="utf-8")
        )
        if section in sections
        and key not in {"py", "parquet", "csv", "html", "md", "apply", "read", "slabs", "studies"}
    }
    unknown = {f"{section}.{key}" for section, key in named if key not in sections[section]}
    assert len(named) > 20
    assert unknown == set()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; ``make docs`` builds it with the same option."""
    for module in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install -e '.[docs]'")
    out = tmp_path_factory.mktemp("site") / "html"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    loads = r"<(?:script|img|iframe|source)[^>]*\ssrc=\"([^\"]+)|<link[^>]*\shref=\"([^\"]+)"
    found = {
        address
        for page in site.rglob("*.html")
        for pair in re.findall(loads, page.read_text(encoding="utf-8"))
        for address in pair
    }
    styles = (path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    found |= {address for style in styles for address in re.findall(r"url\(['\"]?([^)'\"]+)", style)}
    assert {address for address in found if re.match(r"(https?:)?//", address)} == set()
    assert any(address.endswith(".js") for address in found)


def test_the_references_are_complete(site: Path) -> None:
    def page(name: str) -> str:
        return (site / "reference" / f"{name}.html").read_text(encoding="utf-8")

    sections = {name: field.annotation for name, field in Config.model_fields.items()}
    keys = [
        f"{name}.{key}" if isinstance(key, str) else name
        for name, kind in sections.items()
        for key in getattr(kind, "model_fields", {None: None})
    ]
    assert len(keys) > 50
    assert [key for key in keys if f'id="{key}"' not in page("config")] == []
    assert [reason for reason in Reason if f"<code>{reason}</code>" not in page("codes")] == []

    assert [name for name in rsna_seq.__all__ if f'id="rsna_seq.{name}"' not in page("api")] == []


def test_every_option_is_in_the_command_line_reference(site: Path) -> None:
    from rsna_seq.__main__ import app, service, tools

    text = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    parts = dict(re.findall(r'<h2 id="([\w-]+)">(.*?)(?=<h2|</article>)', text, re.DOTALL))
    commands = [c for each in (app, tools, service) for c in each.registered_commands]
    names = [c.name or (c.callback and c.callback.__name__) for c in commands]
    assert sorted(parts) == sorted(names)
    for name, part in parts.items():
        shown = CliRunner().invoke(app, [name, "--help"], env={"TERM": "dumb", "COLUMNS": "200"}).output
        options = set(re.findall(r"--[a-z][a-z-]+", shown.split("Options")[1])) - {"--help"}
        assert options, shown
        assert {option for option in options if f"<code>{option}" not in part} == set(), name


def test_pictures_are_copied_at_build_time(site: Path) -> None:
    pictures = sorted((ROOT / "benchmarks" / "results").glob("*.svg"))
    assert pictures
    for picture in pictures:
        assert (site / "results" / picture.name).read_bytes() == picture.read_bytes()
    assert not list(DOCS.rglob("*.svg"))
