"""Read YAML config files with limits: only small trees of plain values are accepted.

Refused before any alias is expanded: files of more than 256 KiB, encodings other than UTF-8, tags, duplicate
keys, more than 16 levels of nesting, more than 10,000 values, more than 32 aliases, recursive aliases.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from rsna_seq.errors import UsageError

_BYTES = 256 * 1024
_NODES, _DEPTH, _ALIASES = 10_000, 16, 32
_PLAIN = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)
"""Exceptions that PyYAML's constructors raise for values that look like numbers, but are invalid."""


class _Refused(yaml.YAMLError):
    """A document exceeds a limit; the message names the limit."""


class _Loader(yaml.SafeLoader):
    """A SafeLoader that counts values, aliases and levels while it reads."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = self._depth = self._aliases = 0
        self._open: list[str] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one value; refuse it if a limit is exceeded."""
        event = self.peek_event()
        where = f"line {event.start_mark.line + 1}"
        self._nodes += 1
        if self._nodes > _NODES:
            raise _Refused(f"{where}: more than {_NODES:,} values")
        if isinstance(event, yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > _ALIASES:
                raise _Refused(f"{where}: more than {_ALIASES} aliases (*name); write the values out")
            if event.anchor in self._open:
                raise _Refused(f"{where}: the alias *{event.anchor} is inside the value that it refers to")
        elif getattr(event, "tag", None) is not None:
            raise _Refused(f"{where}: a tag (!) is not allowed; write plain values")
        if self._depth >= _DEPTH:
            raise _Refused(f"{where}: nested deeper than {_DEPTH} levels")
        self._depth += 1
        self._open.append(getattr(event, "anchor", None) or "")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1
            self._open.pop()

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping; refuse duplicate keys."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Refused(f"line {key.start_mark.line + 1}: a key must be text, not a list or a mapping")
            if key.value in seen:
                raise _Refused(f"line {key.start_mark.line + 1}: duplicate key {key.value[:40]}")
            seen.add(key.value)
        return node


_Loader.yaml_implicit_resolvers = {  # no config value is a date, but a folder name may look like one
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(file: Path) -> dict[Hashable, Any]:
    """Read a YAML file that contains a mapping or is empty.

    Raises:
        UsageError: The file does not exist, is not a file, not UTF-8, not YAML or not a mapping, or
            exceeds a limit.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > _BYTES:
        raise UsageError(f"{file}: larger than {_BYTES // 1024} KiB, the limit for a config file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{file}: line {line} is not UTF-8; save the file as UTF-8") from None
    tree = parse_yaml(text, str(file))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"{file}: expected a mapping of sections, found {type(tree).__name__}")
    return tree


def parse_yaml(text: str, name: str) -> Any:
    """Parse a YAML text.

    Args:
        text: YAML.
        name: Source of the text, for error messages.

    Raises:
        UsageError: The text is not YAML, or exceeds a limit.
    """
    if len(text) > _BYTES:
        raise UsageError(f"{name[:60]}: larger than {_BYTES // 1024} KiB")
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise UsageError(f"{name}: not YAML: {line}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        words = str(error) if isinstance(error, _Refused) else str(error).splitlines()[0]
        raise UsageError(f"{name}: not readable as YAML: {words}") from None
    except _PLAIN:
        raise UsageError(
            f"{name}: not readable as YAML: a value looks like a number, but is invalid"
        ) from None


def put_override(tree: dict[Any, Any], override: str) -> None:
    """Set one ``a.b=value`` in a tree of mappings; the value is YAML, and a mapping is merged.

    Raises:
        UsageError: The text has another form, or a part of the key is a value, not a section.
    """
    key, sign, text = override.partition("=")
    path = key.split(".")
    shown = override[:80]
    if not sign or not all(part.strip() == part != "" for part in path):
        raise UsageError(f"{shown!r}: an override must have the form key=value, such as embed.epochs=3")
    node = tree
    for part in path[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise UsageError(f"{shown!r}: {part} is a value, not a section")
    value, old = parse_yaml(text, repr(shown)), node.get(path[-1])
    node[path[-1]] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
