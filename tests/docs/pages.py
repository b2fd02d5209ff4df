"""The pages of the documentation and their fenced blocks."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        kind: First word after the fence, such as ``sh``.
        title: The file that a reader saves it as, or None.
    """

    page: str
    line: int
    kind: str
    title: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The commands of a shell block, each as its words, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks_of(page: str, folder: Path = DOCS) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text, found = (folder / page).read_text(encoding="utf-8"), []
    for match in re.finditer(r"^```(\w*)([^\n`]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        title = re.search(r'title="([^"]+)"', match[2])
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match[1], title and title[1], match[3]))
    assert text.count("```") == 2 * len(found), f"{page}: a fence is not closed, or indented"
    return found


def read_site() -> dict[str, Any]:
    """``mkdocs.yml``."""
    site: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    return site


def pages_in(nav: Any) -> Iterator[str]:
    """The pages that a navigation names, in order."""
    if isinstance(nav, str):
        yield nav
    for part in (nav.values() if isinstance(nav, dict) else nav) if not isinstance(nav, str) else ():
        yield from pages_in(part)
