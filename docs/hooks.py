"""What mkdocs adds at build time: the reference pages, written from the code, and the pictures of results.

Only ``rsna_seq.config``, the command line, ``rsna_seq.errors`` and ``rsna_seq.reasons`` are imported; none of
them imports torch. The Python API is read as source by mkdocstrings.
"""

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.models import ArgumentInfo, ParameterInfo

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # mkdocs may run in another environment than the one with the package

MEASURED = ROOT / "benchmarks" / "results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and copy the pictures of ``benchmarks/results``."""
    for uri, write in PAGES.items():
        files.append(File.generated(config, uri, content=write()))
    for picture in sorted(MEASURED.glob("*.svg")):
        files.append(File.generated(config, f"results/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the tables of ``quality.json`` where a page asks for them.

    ``<!-- quality: all -->`` or ``<!-- quality: NAME, NAME -->`` becomes the table of these methods, and
    ``<!-- targets -->`` that of the targets.
    """
    text = re.sub(r"<!-- quality: (.+) -->", lambda found: quality_table(found[1]), markdown)
    return text.replace("<!-- targets -->", targets_table()) if "<!-- targets -->" in text else text


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Drop the Sphinx roles of docstrings, such as ``:class:``, before code."""
    return re.sub(r":(?:func|class|meth|mod|attr|data):(?=<code>)", "", html)


def quality_table(wanted: str) -> str:
    """Log loss of methods with intervals, in both scopes.

    Args:
        wanted: ``all``, or names separated by commas.
    """
    scopes = json.loads((MEASURED / "quality.json").read_text(encoding="utf-8"))["scopes"]
    held_out, out_of_fold = scopes["held_out"], scopes["out_of_fold"]
    names = list(held_out["ways"]) if wanted == "all" else wanted.split(", ")
    names.sort(key=lambda name: held_out["ways"][name]["log_loss"]["value"], reverse=True)
    head = [
        f"{title} ({scope['counts']['patients']} patients, {scope['counts']['slices']:,} slices)"
        for title, scope in (("held out", held_out), ("out of fold", out_of_fold))
    ]
    rows = (
        (name, *(_interval(scope["ways"][name]["log_loss"]) for scope in (held_out, out_of_fold)))
        for name in names
    )
    return "\n".join(_table(("method", *head), rows))


def targets_table() -> str:
    """The targets of the quality benchmark, and whether each was met."""
    targets = json.loads((MEASURED / "quality.json").read_text(encoding="utf-8"))["targets"]
    rows = ((t["target"], t["scope"], t["figure"], "met" if t["met"] else "not met") for t in targets)
    return "\n".join(_table(("target", "scope", "measured", "result"), rows))


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"


def config_page() -> str:
    """Every key of the config, one table for each section, from the classes' docstrings."""
    from rsna_seq.config import Config

    schema = Config.model_json_schema()
    sections = {name: field.annotation for name, field in Config.model_fields.items()}
    parts = {name: kind for name, kind in sections.items() if hasattr(kind, "model_fields")}
    top = {name: schema["properties"][name] for name in sections if name not in parts}
    text = [
        "# Config reference",
        "",
        "YAML files state differences from these defaults (`--config FILE`, or `base`, `small`, `demo`), and "
        "`section.key=value` on the command line overrides both, such as `embed.epochs=3`. An unknown key "
        "is an error. `rsna-seq config` prints the resolved config.",
        "",
        "## Top level",
        "",
        *_keys(top, Config().model_dump(mode="json"), ""),
    ]
    for name, kind in parts.items():
        definition = schema["$defs"][kind.__name__]
        defaults = kind().model_dump(mode="json")
        text += [f"## {name}", "", _markdown(inspect.getdoc(kind) or ""), ""]
        text += _keys(definition["properties"], defaults, f"{name}.")
    return "\n".join(text)


def _keys(properties: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """A table of keys, each with an anchor such as ``#embed.epochs``."""
    yield from ("| key | meaning | default | allowed |", "|---|---|---|---|")
    for key, schema in properties.items():
        default = f"`{json.dumps(defaults[key])}`"
        meaning = _cell(_markdown(schema.get("description", "")))
        yield f"| `{key}`{{ #{prefix}{key} }} | {meaning} | {default} | {_cell(_allowed(schema))} |"
    yield ""


def _allowed(schema: Mapping[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_allowed(part) for part in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{json.dumps(v)}`" for v in schema.get("enum", [schema.get("const")]))
    kind = _KINDS.get(schema.get("type", ""), schema.get("type", "any value"))
    if schema.get("format") == "path":
        return "path"
    if "prefixItems" in schema:
        return "(" + ", ".join(_allowed(part) for part in schema["prefixItems"]) + ")"
    if isinstance(schema.get("items"), Mapping):
        return f"list of {_allowed(schema['items'])}"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {_number(schema[word])}" for word, sign in bounds.items() if word in schema]
    return ", ".join([kind, *limits])


_KINDS = {"array": "list", "null": "`null`", "boolean": "`true`, `false`", "string": "text"}
"""What the types of a JSON schema are called."""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) or value.is_integer() else f"{value:g}"


def cli_page() -> str:
    """Every command with its arguments and options, from the signatures that typer reads."""
    from rsna_seq.__main__ import app

    text = [
        "# Command line reference",
        "",
        f"{app.info.help} `rsna-seq COMMAND --help` prints the same. The exit codes are listed under "
        "[exit codes and reasons](codes.md).",
        "",
    ]
    groups = [group.typer_instance for group in app.registered_groups if group.typer_instance]
    for command in [command for each in (app, *groups) for command in each.registered_commands]:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        rows = list(_parameters(command.callback))
        arguments = [row[0].strip("`") for row in rows if not row[0].startswith("`--")]
        text += [f"## {name}", "", _markdown(command.help or inspect.getdoc(command.callback) or ""), ""]
        text += [f"`{' '.join(['rsna-seq', name, '[OPTIONS]', *arguments])}`", ""]
        text += _table(("option", "default", "meaning"), rows)
    return "\n".join(text)


def _parameters(command: Callable[..., Any]) -> Iterator[tuple[str, str, str]]:
    """Rows of the table of a command's options: name, default, help."""
    hints = get_type_hints(command, include_extras=True)
    for parameter in inspect.signature(command).parameters.values():
        kind, *notes = get_args(hints[parameter.name]) or (hints[parameter.name],)
        info = next((note for note in notes if isinstance(note, ParameterInfo)), None)
        if info is None:
            continue  # a context, which a user does not give
        value = info.metavar or _VALUES.get(_scalar(kind), "TEXT")
        if isinstance(info, ArgumentInfo):
            name = info.metavar or parameter.name.upper()
        else:
            # typer keeps the first declaration of an annotated option where a default would be
            names = [name for name in (info.default, *(info.param_decls or ())) if isinstance(name, str)]
            name = ", ".join(names or ["--" + parameter.name.replace("_", "-")])
            name += "" if kind is bool else f" {value}"
        required = parameter.default is inspect.Parameter.empty
        default = "" if required or parameter.default in (None, False) else f"`{parameter.default}`"
        yield f"`{name}`", "required" if required else default, _markdown(info.help or "")


_VALUES = {Path: "PATH", int: "INTEGER"}


def _scalar(kind: Any) -> Any:
    """The type of one value of ``list[T] | None``."""
    while parts := [part for part in get_args(kind) if part is not type(None)]:
        kind = parts[0]
    return kind


def codes_page() -> str:
    """Exit codes, and the reasons of ``quarantine.parquet`` with their sentences."""
    from rsna_seq import errors
    from rsna_seq.reasons import Action, Reason

    kinds = [e for e in vars(errors).values() if inspect.isclass(e) and issubclass(e, errors.RsnaSeqError)]
    codes = {0: "done; inputs that were not read are counted in the closing line"}
    codes[1] = "a fault of this package; the message names a file with a traceback, free of patient data"
    codes |= {e.exit_code: _markdown(inspect.getdoc(e) or "") for e in kinds if e is not errors.RsnaSeqError}
    rows = [(f"`{code}`", meaning) for code, meaning in codes.items()]
    rows += [("`130`", "interrupted by Ctrl-C; the same command goes on from here")]
    rows += [("`143`", "terminated (SIGTERM); the same command goes on from here")]
    reasons = ((f"`{reason}`", reason.sentence) for reason in Reason)
    return "\n".join(
        [
            *("# Exit codes and reasons", "", "## Exit codes", ""),
            *_table(("code", "meaning"), rows),
            "Messages and progress go to standard error. `RSNA_SEQ_TRACEBACK=1` shows the traceback of an "
            "error; it may quote patient data.",
            *("", "## Reasons", ""),
            "Each row of `quarantine.parquet` names a file, what was done with it "
            f"({', '.join(f'`{action}`' for action in Action)}) and one of these reasons.",
            "",
            *_table(("reason", "meaning"), reasons),
        ]
    )


def api_page() -> str:
    """The public names of the package, documented by mkdocstrings."""
    import rsna_seq

    text = [
        "# Python API",
        "",
        "These names are the library; each is imported when it is first used, so `import rsna_seq` is quick. "
        "Everything else may change without notice. Paths are strings or `pathlib.Path`. A script needs no "
        '`if __name__ == "__main__"` guard.',
        "",
    ]
    names = [name for name in rsna_seq.__all__ if not name.startswith("_")]
    shown = "    options: {members: false}\n"  # the keys of Config have a page of their own
    return "\n".join([*text, *(f"::: rsna_seq.{n}\n{shown if n == 'Config' else ''}" for n in names)])


PAGES = {
    "reference/config.md": config_page,
    "reference/cli.md": cli_page,
    "reference/codes.md": codes_page,
    "reference/api.md": api_page,
}
"""The generated pages; nothing of them is committed."""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(_cell(cell) for cell in row)} |"
    yield ""


def _cell(text: str) -> str:
    """Text that may stand in a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _markdown(text: str) -> str:
    """A docstring's code marks as Markdown's: ``x`` and :class:`x` become `x`."""
    return re.sub(r"(?::\w+:)?(`+)(.+?)\1", r"`\2`", text)
