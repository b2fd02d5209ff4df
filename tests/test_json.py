"""``--json``: one JSON object on standard output, and nothing else there."""

import json
from pathlib import Path

import pytest
from dicoms import write_set

from rsna_seq import pipeline
from rsna_seq.datasets.rsna2019 import submission
from rsna_seq.scoring.metric import Interval
from rsna_seq.terminal.summary import print_summary
from rsna_seq.tools import synth


def stdout_of(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object
) -> dict[str, object]:
    """Run a command with ``--json`` in this process; its standard output as JSON."""
    from rsna_seq.__main__ import main

    monkeypatch.setattr("sys.argv", ["rsna-seq", *map(str, words), "--json"])
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        main()
    printed = capfd.readouterr()
    assert not end.value.code, printed.err
    summary: dict[str, object] = json.loads(printed.out)
    assert summary["command"] == words[0]
    assert summary["schema_version"] == 1
    assert summary["out"] in map(str, words)
    return summary


def test_each_command_prints_its_summary(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_set(tmp_path / "data", studies=2, slices=3, test_studies=0)
    said = stdout_of(capfd, monkeypatch, "index", "--out", tmp_path / "run", f"data.root={data}", "workers=1")
    assert said["stages"]["index"]["counts"]["slices"] == 6  # type: ignore[index]
    said = stdout_of(capfd, monkeypatch, "labels", data / "stage_2_train.csv", tmp_path / "wide.csv")
    assert said["summary"]
    said = stdout_of(capfd, monkeypatch, "png", data, "--out", tmp_path / "png", "--limit", "1")
    assert said["images"] == 3
    tiny = ["synth.studies=1", "synth.test_studies=0", "synth.matrix=64", "workers=1"]
    said = stdout_of(capfd, monkeypatch, "synth", "--out", tmp_path / "synth", *tiny)
    assert (said["studies"], said["reused"]) == (1, False)
    assert stdout_of(capfd, monkeypatch, "synth", "--out", tmp_path / "synth", *tiny)["reused"] is True


def test_the_demo_names_its_loss_and_reports(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synth, "run", lambda *_, **__: None)
    monkeypatch.setattr(pipeline, "run_all", lambda *_, **__: {})
    monkeypatch.setattr(pipeline, "predict", lambda *_, **__: None)
    monkeypatch.setattr(submission, "score_answer", lambda *_: Interval(0.2, 0.1, 0.3))
    said = stdout_of(capfd, monkeypatch, "demo", "--out", tmp_path)
    assert said["log_loss"] == {"value": 0.2, "low": 0.1, "high": 0.3}
    assert said["reports"]["unseen"] == str(tmp_path / "8_unseen" / "report.html")  # type: ignore[index]


def test_a_summary_holds_no_value_that_json_has_not() -> None:
    with pytest.raises(ValueError, match="JSON"):
        print_summary("run", {"loss": float("nan")})
    with pytest.raises(TypeError, match="plain"):
        print_summary("run", {"out": object()})
