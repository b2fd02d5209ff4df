"""Commands around the stages: ``import``, ``labels``, ``png``, ``bundle`` and ``info``.

Nothing heavy is imported before a command runs.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from rsna_seq.terminal.paths import require_folder
from rsna_seq.terminal.summary import print_summary

app = typer.Typer()
AsJson = Annotated[bool, typer.Option("--json", help="Print a summary as one JSON object.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Process at most this many studies.")]
_PANEL = "Tools"


def _a_folder(path: Path) -> Path:
    return require_folder(path, "--out")


@app.command("import", rich_help_panel=_PANEL)
def import_set(
    dataset: Annotated[
        str,
        typer.Argument(metavar="DATASET", help="rsna2019, cq500, physionet, bhsd or folder (any folder)."),
    ],
    source: Annotated[Path, typer.Argument(help="Folder of the data set; it is only read.")],
    out: Annotated[Path, typer.Option("--out", help="Receives the tables.", callback=_a_folder)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Such as imports.labels=labels.csv imports.columns.any=ICH."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file of differences to the defaults.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Import again, even if nothing changed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write tables of a data set (images, labels of slices or studies) for index, run and predict."""
    from rsna_seq.config import load_config
    from rsna_seq.tools import import_set as tool

    made = tool.run(dataset, source, out, load_config(config, overrides or []), rebuild=rebuild)
    if as_json:
        print_summary("import", {"out": out, "stages": {"import": made.summary}})


@app.command(rich_help_panel=_PANEL)
def labels(
    source: Annotated[Path, typer.Argument(help="A label CSV, long or wide.")],
    target: Annotated[Path, typer.Argument(help="Receives the other form.")],
    fix_any: Annotated[
        bool, typer.Option("--fix-any", help="Set any to 1 where it is 0 beside a class that is 1.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Turn the competition's long label CSV into one wide row per slice, or back."""
    from rsna_seq.tools import labels as tool

    require_folder(target.parent, "TARGET")
    said = tool.run(source, target, fix_any=fix_any)
    typer.echo(said, err=as_json)
    if as_json:
        print_summary("labels", {"out": target, "summary": said})


@app.command(rich_help_panel=_PANEL)
def png(
    folder: Annotated[Path, typer.Argument(help="DICOM studies.")],
    out: Annotated[Path, typer.Option("--out", help="Receives one folder per study.", callback=_a_folder)],
    window: Annotated[
        list[str] | None,
        typer.Option("--window", help="brain, subdural, bone or LEVEL/WIDTH; once or three times."),
    ] = None,
    size: Annotated[int | None, typer.Option("--size", min=16, max=4096, help="Rows and columns.")] = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Write windowed PNGs of every slice; three windows become red, green and blue."""
    from rsna_seq.config import load_config
    from rsna_seq.context import Context
    from rsna_seq.imaging.windows import parse_windows
    from rsna_seq.tools import png as tool

    windows = parse_windows(window or ["brain", "subdural", "bone"])
    workers = Context.of(load_config(None, [])).workers
    counts = tool.run(folder, out, windows=windows, workers=workers, size=size, limit=limit)
    written = counts.pop("written", 0)
    typer.echo(f"{written:,} images in {out}; {counts.total():,} files excluded", err=as_json)
    if as_json:
        print_summary("png", {"out": out, "images": written, "excluded": dict(counts)})


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
    notes: Annotated[
        Path | None, typer.Option("--notes", help="Markdown file that is appended to the model card.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a finished run as one file, with a model card and without training data, for predict --run."""
    from rsna_seq.tools import bundle as tool

    made = tool.run(run, out, licence=licence, name=name, half=half, notes=notes)
    size = out.stat().st_size / 1e6
    typer.echo(f"bundle: {out}: {len(made.files):,} files, {size:.1f} MB, digest {made.digest}", err=as_json)
    if as_json:
        described = made.model_dump(mode="json", exclude={"files"})
        print_summary("bundle", {"out": out, "digest": made.digest, **described})


@app.command(rich_help_panel=_PANEL)
def info(
    path: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_BUNDLE", help="A run's folder, a bundle, or one on the internet (https, hf)."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe a run or a bundle: stages, versions, counts, digest."""
    from rsna_seq.store.remote import local_model
    from rsna_seq.tools import bundle as tool

    described = tool.info(local_model(path))
    typer.echo(json.dumps(described, indent=1) if as_json else tool.text_of(described))
