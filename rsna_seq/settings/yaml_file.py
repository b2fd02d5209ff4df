"""YAML of users, under bounds: a config is a small tree of plain values, and nothing else is built.

Refused before anything is expanded: more than 256 KiB, other encodings than UTF-8, tags, a key twice, nesting
beyond 16 levels, more than 10,000 values, more than 32 aliases, an alias of what encloses it.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from rsna_seq.errors import UsageError

_BYTES = 256 * 1024
_NODES, _DEPTH, _ALIASES = 10_000, 16, 32
_PLAIN = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)
"""What PyYAML's constructors raise on values that look like numbers and are none."""


class _Refused(yaml.YAMLError):
    """A document beyond the bounds; the message says which."""


class _Loader(yaml.SafeLoader):
    """A SafeLoader that counts while it reads."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = self._depth = self._aliases = 0
        self._open: list[str] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one value, and refuse it beyond the bounds."""
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
                raise _Refused(f"{where}: *{event.anchor} stands within what it names")
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
        """Compose a mapping; a key that stands in it twice is refused."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Refused(f"line {key.start_mark.line + 1}: a key is a word, not a list or a mapping")
            if key.value in seen:
                raise _Refused(f"line {key.start_mark.line + 1}: the key {key.value[:40]} stands twice")
            seen.add(key.value)
        return node


_Loader.yaml_implicit_resolvers = {  # dates are no values of a config; a folder may be called like one
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(file: Path) -> dict[Hashable, Any]:
    """Read a YAML file that holds a mapping, or nothing.

    Raises:
        UsageError: It is not there, no file, not UTF-8, not YAML, beyond the bounds, or no mapping.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > _BYTES:
        raise UsageError(f"{file}: larger than {_BYTES // 1024} KiB; that is no config")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{file}: line {line} is not UTF-8; save the file as UTF-8") from None
    tree = parse_yaml(text, str(file))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"{file}: a mapping of sections was expected, found {type(tree).__name__}")
    return tree


def parse_yaml(text: str, name: str) -> Any:
    """The value of a YAML text.

    Args:
        text: YAML.
        name: Where it comes from, for messages.

    Raises:
        UsageError: It is not YAML, or beyond the bounds.
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
        raise UsageError(f"{name}: not readable as YAML: a value is no number") from None


def put_override(tree: dict[Any, Any], override: str) -> None:
    """Set one ``a.b=value`` in a tree of mappings; the value is YAML, and a mapping adds to what is there.

    Raises:
        UsageError: It is not written so, or a part of the key is a value and no section.
    """
    key, sign, text = override.partition("=")
    path = key.split(".")
    shown = override[:80]
    if not sign or not all(part.strip() == part != "" for part in path):
        raise UsageError(f"{shown!r}: an override is written key=value, such as embed.epochs=3")
    node = tree
    for part in path[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise UsageError(f"{shown!r}: {part} is a value, not a section")
    value, old = parse_yaml(text, repr(shown)), node.get(path[-1])
    node[path[-1]] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
