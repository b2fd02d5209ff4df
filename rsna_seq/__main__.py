"""The command line: one command per stage. A stage is imported only when it runs."""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

_INTERRUPTED = 130

try:
    import typer
    import typer.core

    from rsna_seq.console import show_log
    from rsna_seq.terminal.failures import tell
    from rsna_seq.terminal.paths import exists, require_file, require_folder
    from rsna_seq.terminal.streams import secure_streams
    from rsna_seq.terminal.summary import print_summary
    from rsna_seq.tools.commands import AsJson, Limit
    from rsna_seq.tools.commands import app as tools
except KeyboardInterrupt:  # Ctrl-C while the imports run, before main() can handle it
    sys.exit(_INTERRUPTED)

if TYPE_CHECKING:
    from rsna_seq.config import Config

_RESEARCH = "For research; not a medical device."


class _Commands(typer.core.TyperGroup):
    """The commands; what typer would take for the end of its own input or output is passed on as a fault."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(type(error).__name__) from error


app = typer.Typer(
    name="rsna-seq",
    cls=_Commands,
    help=f"Intracranial haemorrhage on head CT, slice by slice with the whole study in view. {_RESEARCH}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(tools)


def _a_folder(path: Path) -> Path:
    return require_folder(path, "--out")


def _a_dicom_folder(path: Path | None) -> Path | None:
    return path and require_folder(path, "--dicom")


def _a_sample(path: Path | None) -> Path | None:
    return path and require_file(path, "--sample")


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML file of differences to the defaults, or the name of a shipped config: base, small, demo.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Folder of the run.", callback=_a_folder)]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="Rebuild outputs, including trained weights.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 3 where input was quarantined.")]
Series = Annotated[
    str | None, typer.Option("--series", help="Read this SeriesInstanceUID in the study that has it.")
]
AssumeHu = Annotated[
    bool, typer.Option("--assume-hu", help="Take stored values as HU where there is no rescale.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as embed.epochs=3.")
]

_STAGES = {
    "index": "Read DICOM headers: one table row per slice, ordered within the study, with labels and folds.",
    "cache": "Decode pixels to Hounsfield units once, cropped to the head.",
    "embed": "Train the 2.5D CNN, one network per fold, and embed every slice out of fold.",
    "sequence": "Train the GRU over whole studies.",
    "joint": "Optional: fine-tune CNN and GRU together on whole studies.",
    "stack": "Fit the boosted trees on the logits of the models.",
    "evaluate": "Compute the official metric with intervals, and write the report.",
}
_RUN = "Run all stages, and write the submission if the data has test images."


def _run_command(stages: str | None) -> Callable[..., None]:
    """The command of one stage, or of all for None; all have the same options."""

    def command(
        overrides: Overrides = None,
        config: ConfigFile = None,
        out: Out = Path("runs/default"),
        series: Series = None,
        assume_hu: AssumeHu = False,
        limit: Limit = None,
        rebuild: Rebuild = False,
        strict: Strict = False,
        as_json: AsJson = False,
    ) -> None:
        from rsna_seq import pipeline

        words = _indexing(overrides, series, assume_hu)
        cfg = pipeline.config_of_run(out, config, words, limit=limit)
        if stages is None:
            made = pipeline.run_all(cfg, out, rebuild=rebuild)
        else:
            one = pipeline.run_stage(stages, cfg, out, rebuild=rebuild)
            made = {} if one is None else {stages: one}
        if as_json:
            summary = {name: manifest.summary for name, manifest in made.items()}
            print_summary(stages or "run", {"out": out, "stages": summary})
        _strict(strict, out)

    return command


for _name, _text in _STAGES.items():
    app.command(_name, help=_text, rich_help_panel="Stages")(_run_command(_name))
app.command("run", help=_RUN, rich_help_panel="All stages")(_run_command(None))


@app.command(rich_help_panel="Stages")
def predict(
    folders: Annotated[
        list[str], typer.Argument(metavar="FOLDER... [KEY=VALUE]...", help="DICOM studies, zip files.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", help="Receives slices.csv, studies.csv, report.html.", callback=_a_folder),
    ],
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            help="A finished run, a bundle, or a bundle on the internet (https:// or hf://, with #DIGEST); "
            "several are averaged. Default: the model in this package, which was trained on phantoms only.",
        ),
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option("--sample", help="The competition's sample submission.", callback=_a_sample),
    ] = None,
    dicom: Annotated[
        Path | None,
        typer.Option(
            "--dicom",
            help="Receives a structured report, key objects and captures per study, as DICOM (extra clinic).",
            callback=_a_dicom_folder,
        ),
    ] = None,
    tta: Annotated[bool, typer.Option("--tta", help="Average with the flipped study.")] = False,
    series: Series = None,
    assume_hu: AssumeHu = False,
    config: ConfigFile = None,
    limit: Limit = None,
    rebuild: Rebuild = False,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Score unseen DICOM studies with one or more finished runs."""
    from rsna_seq import pipeline

    overrides = [f for f in folders if "=" in f and not exists(Path(f))]
    places = [Path(f) for f in folders if f not in overrides]
    words = _indexing(overrides, series, assume_hu) + (["predict.tta=true"] if tta else [])
    cfg = _config(config, words, limit)
    made = pipeline.predict(places, run or [], out, cfg, sample=sample, dicom=dicom, rebuild=rebuild)
    if as_json:
        from rsna_seq.clinic.results import STUDIES, read_results

        files = {"studies": out / STUDIES, "report": out / "report.html", "dicom": dicom}
        notices = read_results(out).notices
        stages = {"predict": made.summary}
        print_summary("predict", {"out": out, "notices": notices, "files": files, "stages": stages})
    _strict(strict, out)


@app.command(rich_help_panel="All stages")
def demo(
    overrides: Overrides = None,
    config: ConfigFile = Path("demo"),
    out: Out = Path("runs/demo"),
    rebuild: Rebuild = False,
    as_json: AsJson = False,
) -> None:
    """Run all stages on phantoms, in minutes, and predict phantoms that the run has not seen."""
    from rsna_seq import pipeline

    summary = pipeline.demo(_config(config, overrides, None), out, rebuild=rebuild)
    if as_json:
        print_summary("demo", summary)


@app.command(rich_help_panel="Tools")
def synth(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="Receives DICOM files and CSVs; with synth.format=hu the index and cache of a run.",
            callback=_a_folder,
        ),
    ],
    overrides: Overrides = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Write phantom studies in the competition's layout, or directly as the cache of a run."""
    from rsna_seq import pipeline

    made = pipeline.synth(pipeline.config_of_run(out, config, overrides or []), out)
    if as_json:
        print_summary("synth", {"out": out, **made})


@app.command("config", rich_help_panel="Tools")
def config_command(overrides: Overrides = None, config: ConfigFile = None) -> None:
    """Print the resolved config, every key."""
    from rsna_seq.config import dump_config

    typer.echo(dump_config(_config(config, overrides, None)), nl=False)


def _config(file: Path | None, overrides: list[str] | None, limit: int | None) -> "Config":
    from rsna_seq.config import load_config

    extra = [] if limit is None else [f"limit={limit}"]
    return load_config(file, [*(overrides or []), *extra])


def _indexing(overrides: list[str] | None, series: str | None, assume_hu: bool) -> list[str]:
    """Overrides, and what the options of ``index`` say."""
    words = [*(overrides or [])]
    words += [f"index.series={json.dumps(series)}"] if series else []
    return words + (["index.assume_hu=true"] if assume_hu else [])


def _strict(strict: bool, out: Path) -> None:
    """Under ``--strict``, quarantined input is an error, once everything else is done."""
    if not strict:
        return
    import polars as pl

    from rsna_seq.errors import QuarantinedError
    from rsna_seq.reasons import Action

    tables = [pl.read_parquet(file) for file in sorted(out.rglob("quarantine.parquet"))]
    lost = sum(len(t.filter(pl.col("action") == Action.QUARANTINED)) for t in tables)
    if lost:
        raise QuarantinedError(f"{lost} files were quarantined; see quarantine.parquet below {out}")


def _terminated(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def main() -> NoReturn:
    """Run a command and end with the exit code that the README lists."""
    try:
        secure_streams()
        show_log()
        signal.signal(signal.SIGTERM, _terminated)
        app()
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            typer.echo("rsna-seq: interrupted; the same command goes on from here", err=True)
        raise
    except BaseException as error:
        sys.exit(tell(error))
    raise AssertionError("a command always ends in SystemExit")


if __name__ == "__main__":
    main()
