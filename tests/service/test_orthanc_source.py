"""``watch`` with a real Orthanc server: studies are found, answered, and the results are back in it."""

from contextlib import closing
from pathlib import Path

import pytest
from objects import faults
from pydicom import dcmread
from pydicom.config import disable_value_validation
from servers import OrthancServer
from studies import QUICK, all_states, kill, send_all, start, states_of, wait_for, write_head

from rsna_seq.clinic.identifiers import valid_uid
from rsna_seq.config import Config, SynthConfig, load_config
from rsna_seq.service import addresses, watch
from rsna_seq.service.addresses import parse_address
from rsna_seq.service.orthanc import MARK
from rsna_seq.service.queue import QUEUE, Queue
from rsna_seq.service.scorer import Scorer
from rsna_seq.service.send import WebDestination, destination_of
from rsna_seq.service.source import Inbox
from rsna_seq.service.store_source import StoreSource
from rsna_seq.service.worker import SendError
from rsna_seq.tools import synth

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'rsna-seq[clinic]'")

ONE = SynthConfig(studies=1, test_studies=0, matrix=64, damage=False)


@pytest.fixture(autouse=True)
def _credentials(orthanc: OrthancServer, monkeypatch: pytest.MonkeyPatch, scorer: Scorer) -> None:
    """The password in the environment; an empty server; a model that is loaded already."""
    orthanc.empty()
    monkeypatch.setenv(addresses.USER, orthanc.user)
    monkeypatch.setenv(addresses.PASSWORD, orthanc.password)
    monkeypatch.setattr(watch, "Scorer", lambda *_, **__: scorer)


def _must_be_back(orthanc: OrthancServer, out: Path, study: str, tmp_path: Path) -> None:
    """The report and the key objects are stored under their study, as they were written, and are valid."""
    stored, back = orthanc.series(study), {}
    assert {"SR", "KO", "OT", "CT"} == set(stored)
    source = tmp_path / "source.dcm"
    source.write_bytes(orthanc.file(stored["CT"][0]))
    for instance in stored["SR"] + stored["KO"] + stored["OT"]:
        file = tmp_path / f"{instance}.dcm"
        file.write_bytes(orthanc.file(instance))
        assert faults(file) <= faults(source), file
        with disable_value_validation():
            found = dcmread(file)
            back[str(found.SOPInstanceUID)] = found.to_json()
    (folder,) = (out / "answers" / study).glob("*/dicom")
    with disable_value_validation():
        written = [dcmread(file) for file in folder.glob("*/*.dcm")]
        assert back == {str(each.SOPInstanceUID): each.to_json() for each in written}


def _phantom(folder: Path) -> str:
    """A phantom with valid UIDs, as a scanner would send it; its StudyInstanceUID."""
    synth.run(
        SynthConfig(studies=1, test_studies=0, matrix=64, damage=False), folder / "set", seed=3, workers=1
    )
    (folder / "phantom").mkdir()
    for file in (folder / "set" / "stage_2_train").glob("*.dcm"):
        with disable_value_validation():
            image = dcmread(file)
            for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
                setattr(image, keyword, valid_uid(str(image[keyword].value)))
            image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            image.save_as(folder / "phantom" / file.name, enforce_file_format=True)
    return str(image.StudyInstanceUID)


def test_a_phantom_is_answered_in_the_server_and_its_results_are_not_scored(
    orthanc: OrthancServer, tmp_path: Path, quick: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    study = _phantom(tmp_path)
    orthanc.store(tmp_path / "phantom")
    for _ in range(2):  # the second time, the study has become stable again, with the results in it
        counts = watch.run(quick, orthanc.url, tmp_path / "out", send=orthanc.url, once=True)
        assert (counts["sent"], counts["failed"], counts["unsent"]) == (1, 0, 0)
        wait_for(lambda: all(each["IsStable"] for each in orthanc.get("/studies?expand")))
    _must_be_back(orthanc, tmp_path / "out", study, tmp_path)
    assert states_of(tmp_path / "out") == {study: ["sent"]}
    for series in orthanc.get("/series?expand"):
        marks = orthanc.get(f"/series/{series['ID']}/metadata")
        assert (str(MARK) in marks) == (series["MainDicomTags"]["Modality"] != "CT")
    said = capfd.readouterr().err
    assert f"study {study}: any 0." in said
    assert orthanc.password not in said
    assert not list((tmp_path / "out" / "received").iterdir())


def test_a_real_study_is_answered_in_the_server(
    orthanc: OrthancServer, tmp_path: Path, quick: Config, real: Path
) -> None:
    files = sorted((real / "cq500").rglob("*.dcm"))
    study = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    mine = [f for f in files if str(dcmread(f, stop_before_pixels=True).StudyInstanceUID) == study]
    (tmp_path / "real").mkdir()
    for file in mine:
        (tmp_path / "real" / file.name).symlink_to(file)
    orthanc.store(tmp_path / "real")
    stow = f"{orthanc.url}/dicom-web"  # as any DICOMweb server: nothing of Orthanc's own is used
    watch.run(quick, orthanc.url, tmp_path / "out", send=stow, once=True)
    _must_be_back(orthanc, tmp_path / "out", study, tmp_path)


def test_killed_in_the_middle_every_study_is_answered_in_the_server_once(
    orthanc: OrthancServer, tmp_path: Path, quick: Config
) -> None:
    studies = [write_head(tmp_path / "in", n, damaged=n == 3) for n in range(1, 5)]
    orthanc.store(tmp_path / "in")
    words = ("watch", orthanc.url, "--out", tmp_path / "out", "--send", orthanc.url, *QUICK)
    first = start(*words)
    wait_for(lambda: "sent" in all_states(tmp_path / "out"))
    said = kill(first)
    assert {"stable", "scoring", "answered"} & all_states(tmp_path / "out")
    watch.run(quick, orthanc.url, tmp_path / "out", send=orthanc.url, once=True)
    expected = {study: ["failed" if n == 3 else "sent"] for n, study in enumerate(studies, start=1)}
    assert states_of(tmp_path / "out") == expected, said
    for n, study in enumerate(studies, start=1):
        kinds = {modality: len(found) for modality, found in orthanc.series(study).items()}
        assert {k: kinds.get(k) for k in ("SR", "KO")} == dict.fromkeys(("SR", "KO"), None if n == 3 else 1)
    assert orthanc.password not in said


def test_what_stow_refuses_is_stored_by_rest_and_old_studies_can_be_left_out(
    orthanc: OrthancServer, tmp_path: Path, quick: Config
) -> None:
    """The competition's files have neither SOPClassUID nor valid UIDs: the results are another study."""
    synth.run(ONE, tmp_path / "set", seed=4, workers=1)
    orthanc.store(tmp_path / "set" / "stage_2_train")
    (source,) = orthanc.get("/studies?expand")
    study = source["MainDicomTags"]["StudyInstanceUID"]
    new_only = load_config(None, [*QUICK, "service.backlog=false"])
    wait_for(lambda: orthanc.get("/studies?expand")[0]["IsStable"])
    counts = watch.run(new_only, orthanc.url, tmp_path / "new", once=True)
    assert sum(counts.values()) == 0
    watch.run(quick, orthanc.url, tmp_path / "out", send=orthanc.url, once=True)
    assert states_of(tmp_path / "out") == {study: ["sent"]}
    assert set(orthanc.series(valid_uid(study))) == {"SR", "KO", "OT"}
    orthanc.empty()
    server = parse_address(orthanc.url, "--send")
    bare = next((tmp_path / "set" / "stage_2_train").glob("*.dcm"))  # STOW-RS refuses it
    assert "SOPClassUID" not in dcmread(bare, stop_before_pixels=True)
    destination_of(server, source=server).send([bare])
    assert len(orthanc.series(study)["CT"]) == 1
    with pytest.raises(SendError, match="401"):
        WebDestination(server, ("tests", "wrong")).send([bare])


def test_studies_arrive_by_c_store_and_results_leave_by_it(
    orthanc: OrthancServer, tmp_path: Path, quick: Config
) -> None:
    studies = [write_head(tmp_path / "in", n, damaged=n == 2) for n in (1, 2)]
    target = f"dicom://{orthanc.title}@127.0.0.1:{orthanc.dicom_port}"
    here = parse_address("dicom://HERE@127.0.0.1:11119", "SOURCE")
    (tmp_path / "out").mkdir()
    with closing(Queue(tmp_path / "out" / QUEUE)) as queue:
        inbox = Inbox(tmp_path / "out", quick.service)
        listener = StoreSource(here, queue, inbox, quick.service)
        assert send_all(here, sorted((tmp_path / "in").iterdir())) == [0] * 8
        listener.close()
    # it has ended before the studies were complete: what the sender was told to be stored is scored
    for _ in range(2):
        watch.run(quick, here.url, tmp_path / "out", send=target, once=True)
        assert states_of(tmp_path / "out") == {studies[0]: ["sent"], studies[1]: ["failed"]}
    assert set(orthanc.series(studies[0])) == {"SR", "KO", "OT"}
    assert orthanc.series(studies[1]) == {}
