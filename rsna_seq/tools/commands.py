"""Commands on finished runs: ``bundle`` and ``info``. Nothing heavy is imported before a command runs."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
_PANEL = "Tools"


@app.command(rich_help_panel=_PANEL)
def bundle(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    out: Annotated[Path, typer.Option("--out", help="The bundle to write, a .zip file.")],
    licence: Annotated[
        str, typer.Option("--licence", help="Licence of the weights; you decide it, the card states it.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the model; default: of the file.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Weights in half precision: half the size.")] = False,
) -> None:
    """Write a finished run as one file, with a model card and without training data, for predict --run."""
    from rsna_seq.tools import bundle as tool

    made = tool.run(run, out, licence=licence, name=name, half=half)
    size = out.stat().st_size / 1e6
    typer.echo(f"bundle: {out}: {len(made.files):,} files, {size:.1f} MB, digest {made.digest}")


@app.command(rich_help_panel=_PANEL)
def info(
    path: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="A run's folder, or a bundle.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe a run or a bundle: stages, versions, counts, digest."""
    from rsna_seq.tools import bundle as tool

    described = tool.info(path)
    typer.echo(json.dumps(described, indent=1) if as_json else tool.text_of(described))
