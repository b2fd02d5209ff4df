"""The examples of the page on the service: a systemd unit, a compose file, and a configuration of Orthanc."""

import configparser
import json
import shlex
from typing import Any

import yaml
from pages import Block, blocks_of
from typer.main import get_command
from typer.testing import CliRunner

from rsna_seq.__main__ import app

PAGE = "service.md"


def _block(kind: str) -> Block:
    (found,) = [block for block in blocks_of(PAGE) if block.kind == kind]
    return found


def _watches(words: list[str]) -> dict[str, Any]:
    """The options of a ``watch`` command, as the command line reads them."""
    assert words[0].endswith("rsna-seq")
    assert words[1] == "watch"
    command = get_command(app).commands["watch"]  # type: ignore[attr-defined]
    context = command.make_context("watch", words[2:], resilient_parsing=False)
    return dict(context.params)


def test_the_unit_runs_a_command_that_exists() -> None:
    unit = configparser.ConfigParser()
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(_block("ini").text)
    assert {"Unit", "Service", "Install"} == set(unit.sections())
    options = _watches(shlex.split(unit["Service"]["ExecStart"]))
    assert options["send"] == options["source"] == "http://127.0.0.1:8042"
    state = unit["Service"]["StateDirectory"]
    assert str(options["out"]).startswith(f"/var/lib/{state}/")
    assert float(unit["Service"]["TimeoutStopSec"]) >= 60


def test_the_compose_file_runs_a_command_that_exists_and_opens_loopback_only() -> None:
    made = yaml.safe_load(_block("yaml").text)
    services = made["services"]
    options = _watches(services["watch"]["command"])
    host = options["source"].removeprefix("http://").split(":")[0]
    assert host in services
    assert all(port.startswith("127.0.0.1:") for s in services.values() for port in s.get("ports", []))
    volumes = {volume.split(":")[0] for s in services.values() for volume in s["volumes"]}
    assert volumes == set(made["volumes"])
    given = services["watch"]["environment"]
    assert given["RSNA_SEQ_PASSWORD"] in services["orthanc"]["environment"]["ORTHANC__REGISTERED_USERS"]


def test_the_configuration_of_orthanc_has_a_password() -> None:
    made = json.loads(_block("json").text)
    assert made["AuthenticationEnabled"] is True
    assert made["RemoteAccessAllowed"] is False
    assert made["RegisteredUsers"]


def test_the_variables_on_the_page_are_those_of_the_program() -> None:
    from pages import DOCS

    from rsna_seq.service import addresses, guard

    text = (DOCS / PAGE).read_text(encoding="utf-8")
    names = (addresses.USER, addresses.PASSWORD, addresses.SEND_USER, addresses.SEND_PASSWORD, guard.TOKEN)
    assert all(f"`{name}`" in text for name in names)
    shown = CliRunner().invoke(app, ["serve", "--help"], env={"TERM": "dumb", "COLUMNS": "200"}).output
    assert guard.TOKEN in shown
