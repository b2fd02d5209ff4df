"""``watch`` on a folder: the answers of the command, each study once, whatever happens to the process."""

import json
import shutil
import signal
import zipfile
from pathlib import Path

import polars as pl
import pytest
from studies import QUICK, all_states, jobs_of, kill, start, states_of, wait_for, write_head

from rsna_seq import pipeline
from rsna_seq.clinic.results import read_results
from rsna_seq.config import Config
from rsna_seq.errors import EnvironmentFaultError, UsageError
from rsna_seq.service import watch
from rsna_seq.service.scorer import Scorer


@pytest.fixture
def loaded(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """``watch`` in this process uses the model that is loaded already."""
    monkeypatch.setattr(watch, "Scorer", lambda *_, **__: scorer)


@pytest.mark.usefixtures("loaded")
def test_a_folder_is_answered_with_the_bytes_of_predict(tmp_path: Path, quick: Config) -> None:
    plain, broken = write_head(tmp_path / "in" / "a", 1), write_head(tmp_path / "in" / "b", 2, damaged=True)
    packed = write_head(tmp_path / "packed", 3)
    with zipfile.ZipFile(tmp_path / "in" / "c.zip", "w") as archive:
        for file in (tmp_path / "packed").iterdir():
            archive.write(file, f"studies/{file.name}")
    (tmp_path / "in" / "notes.txt").write_text("not DICOM", encoding="utf-8")
    counts = watch.run(quick, str(tmp_path / "in"), tmp_path / "out", once=True)
    assert (counts["answered"], counts["failed"], counts["stable"]) == (2, 1, 0)
    assert states_of(tmp_path / "out") == {plain: ["answered"], broken: ["failed"], packed: ["answered"]}
    (failed,) = [job for job in jobs_of(tmp_path / "out") if job.study == broken]
    assert failed.reason == "no readable CT slice: 4 pixels_truncated"
    for study, folder in ((plain, tmp_path / "in" / "a"), (packed, tmp_path / "packed")):
        (answer,) = (tmp_path / "out" / "answers" / study).iterdir()
        by_command = tmp_path / f"by_command_{study}"
        pipeline.predict([folder], [], by_command / "r", quick, dicom=by_command / "d")
        columns = [
            c for c in pl.read_csv(by_command / "r" / "slices.csv").columns if c not in {"file", "root"}
        ]
        ours, theirs = (pl.read_csv(f / "slices.csv") for f in (answer / "result", by_command / "r"))
        assert ours.select(columns).equals(theirs.select(columns))
        studies = [f / "studies.csv" for f in (answer / "result", by_command / "r")]
        assert studies[0].read_bytes() == studies[1].read_bytes()
        names = sorted(f.name for f in (by_command / "d" / study).iterdir())
        assert "report.dcm" in names
        for name in names:
            dicom = answer / "dicom" / study / name
            assert dicom.read_bytes() == (by_command / "d" / study / name).read_bytes()
    page = (tmp_path / "out" / "worklist.html").read_text(encoding="utf-8")
    assert f"answers/{plain}/" in page
    assert page.index(packed) < page.index(broken)
    assert not list((tmp_path / "out" / "received").iterdir())
    again = watch.run(quick, str(tmp_path / "in"), tmp_path / "out", once=True)
    assert again == counts


@pytest.mark.usefixtures("loaded")
def test_new_slices_after_the_answer_make_a_new_answer(tmp_path: Path, quick: Config) -> None:
    study = write_head(tmp_path / "in", 1)
    late = tmp_path / "in" / f"{study}.1.4.dcm"
    shutil.move(late, tmp_path / "late.dcm")
    watch.run(quick, str(tmp_path / "in"), tmp_path / "out", once=True)
    shutil.move(tmp_path / "late.dcm", late)
    watch.run(quick, str(tmp_path / "in"), tmp_path / "out", once=True)
    assert states_of(tmp_path / "out") == {study: ["answered", "answered"]}
    answers = [tmp_path / "out" / str(job.answer) / "result" for job in jobs_of(tmp_path / "out")]
    assert [read_results(answer).studies[0].slices for answer in answers] == [3, 4]


@pytest.mark.usefixtures("loaded")
def test_files_without_a_study_fail_with_their_reason(tmp_path: Path, quick: Config) -> None:
    (tmp_path / "in" / "x").mkdir(parents=True)
    (tmp_path / "in" / "x" / "empty.dcm").touch()
    (tmp_path / "in" / "bad.zip").write_bytes(b"PK\3\4 not a zip file")
    write_head(tmp_path / "in" / "good", 1)
    (tmp_path / "in" / "good" / "empty.dcm").touch()
    watch.run(quick, str(tmp_path / "in"), tmp_path / "out", once=True)
    found = {job.study: (job.state.value, job.reason) for job in jobs_of(tmp_path / "out")}
    assert found["damaged files in x"] == ("failed", "no readable CT slice: 1 empty_file")
    assert found["damaged files in ."] == ("failed", "no readable CT slice: 1 bad_archive")
    assert found["1.2.826.0.7.1"] == ("answered", None)
    (answer,) = (tmp_path / "out" / "answers" / "1.2.826.0.7.1").iterdir()
    assert read_results(answer / "result").studies[0].slices == 4


@pytest.mark.service
def test_killed_in_the_middle_it_loses_nothing_and_answers_nothing_twice(tmp_path: Path) -> None:
    studies = [write_head(tmp_path / "in", n, damaged=n == 4) for n in range(1, 6)]
    words = ("watch", tmp_path / "in", "--out", tmp_path / "out", *QUICK)
    first = start(*words)
    wait_for(lambda: "scoring" in all_states(tmp_path / "out"))
    said = kill(first)
    assert "Traceback" not in said
    at_kill = states_of(tmp_path / "out")
    assert any("answered" not in states for states in at_kill.values())
    second = start(*words)
    wait_for(lambda: all_states(tmp_path / "out") <= {"answered", "failed"})
    second.send_signal(signal.SIGTERM)
    said = second.communicate(timeout=60)[0]
    assert second.returncode == 0, said
    assert states_of(tmp_path / "out") == {
        study: ["failed" if n == 4 else "answered"] for n, study in enumerate(studies, start=1)
    }
    for n, study in enumerate(studies, start=1):
        if n != 4:
            (answer,) = (tmp_path / "out" / "answers" / study).iterdir()
            assert read_results(answer / "result").studies[0].study == study
    lines = [line for line in said.splitlines() if " study 1.2.826" in line]
    assert len(lines) == len({line.split(": ")[0] for line in lines})
    assert "Doe" not in said


def test_the_command_prints_a_summary_and_refuses_what_it_cannot_use(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, scorer: Scorer
) -> None:
    import sys

    from rsna_seq.__main__ import main

    monkeypatch.setattr(watch, "Scorer", lambda *_, **__: scorer)
    write_head(tmp_path / "in", 1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    for source, out, code in (("in", "out", 0), ("absent", "out", 2), ("in", "mine", 2), ("in", "in/o", 2)):
        words = ["watch", str(tmp_path / source), "--out", str(tmp_path / out), "--once", "--json"]
        monkeypatch.setattr(sys, "argv", ["rsna-seq", *words, *QUICK])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = capfd.readouterr()
        assert int(end.value.code or 0) == code, printed.err
        if not code:
            assert json.loads(printed.out)["studies"]["answered"] == 1
            assert "study 1.2.826.0.7.1: any 0." in printed.err
    assert [f.name for f in (tmp_path / "mine").iterdir()] == ["letter.txt"]


@pytest.mark.usefixtures("loaded")
def test_a_destination_that_is_not_there_is_tried_again_and_told(tmp_path: Path, quick: Config) -> None:
    write_head(tmp_path / "in", 1)
    with pytest.raises(EnvironmentFaultError, match="could not be sent"):
        watch.run(quick, str(tmp_path / "in"), tmp_path / "out", send="http://127.0.0.1:9", once=True)
    (job,) = jobs_of(tmp_path / "out")
    assert (job.state.value, job.to_send) == ("answered", True)
    assert "not sent" in (job.reason or "")
    with pytest.raises(EnvironmentFaultError, match="GET http://127"):
        watch.run(quick, "http://127.0.0.1:9", tmp_path / "out", once=True)
    with pytest.raises(UsageError, match="credentials"):
        watch.run(quick, "http://user:secret@127.0.0.1:9", tmp_path / "out", once=True)
