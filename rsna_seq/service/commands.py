"""The commands ``watch`` and ``serve``; nothing heavy is imported before one runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsna_seq.terminal.paths import require_folder
from rsna_seq.terminal.summary import print_summary

if TYPE_CHECKING:
    from rsna_seq.config import Config

app = typer.Typer()
_PANEL = "Service"


def _a_folder(path: Path) -> Path:
    return require_folder(path, "--out")


Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as service.stable_s=30.")
]
Out = Annotated[
    Path, typer.Option("--out", help="Receives the queue, the answers, the worklist.", callback=_a_folder)
]
Runs = Annotated[
    list[Path] | None,
    typer.Option(
        "--run",
        help="A finished run or a bundle; several are averaged. Default: the model in this package, which "
        "was trained on phantoms only.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file of differences to the defaults, or base, small, demo."),
]
Send = Annotated[
    str | None,
    typer.Option(
        "--send",
        metavar="ADDRESS",
        help="Send the DICOM results there: the address of a DICOMweb service or of Orthanc, or "
        "dicom://AET@HOST:PORT for C-STORE. Credentials: RSNA_SEQ_SEND_USER, RSNA_SEQ_SEND_PASSWORD.",
    ),
]


@app.command(rich_help_panel=_PANEL)
def watch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder, the address of an Orthanc server (http://HOST:PORT; credentials: RSNA_SEQ_USER, "
            "RSNA_SEQ_PASSWORD), or dicom://AET@HOST:PORT to receive studies by C-STORE there.",
        ),
    ],
    out: Out,
    overrides: Overrides = None,
    run: Runs = None,
    send: Send = None,
    once: Annotated[
        bool, typer.Option("--once", help="Answer what is there, and end; do not wait for more.")
    ] = False,
    config: ConfigFile = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a summary as one JSON object at the end.")
    ] = False,
) -> None:
    """Score studies as they arrive, with a model that stays loaded, until SIGTERM or Ctrl-C."""
    cfg = _config(config, overrides)
    from rsna_seq.service import watch as service

    counts = service.run(cfg, source, out, run or [], send=send, once=once)
    if as_json:
        print_summary("watch", {"out": out, "worklist": out / service.WORKLIST, "studies": counts})


@app.command(rich_help_panel=_PANEL)
def serve(
    out: Out,
    overrides: Overrides = None,
    run: Runs = None,
    host: Annotated[
        str, typer.Option("--host", help="Where to listen; needs RSNA_SEQ_TOKEN unless it is loopback.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 chooses a free one.")] = 8000,
    send: Send = None,
    config: ConfigFile = None,
) -> None:
    """Score studies that are uploaded by HTTP (extra serve), until SIGTERM or Ctrl-C."""
    cfg = _config(config, overrides)
    from rsna_seq.service import serve as service

    service.run(cfg, out, run or [], host=host, port=port, send=send)


def _config(file: Path | None, overrides: list[str] | None) -> "Config":
    from rsna_seq.config import load_config

    return load_config(file, overrides or [])
