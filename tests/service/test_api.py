"""``serve``: the right answer for each client, clear refusals, no error of the server whatever is sent."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from served import Served, serving, zipped
from studies import write_head

from rsna_seq.clinic.results import Study, read_results
from rsna_seq.config import Config, load_config
from rsna_seq.service.scorer import Scorer
from rsna_seq.service.view import StudyState

schemathesis = pytest.importorskip(
    "schemathesis", reason="schemathesis is not installed: pip install -e '.[dev]'"
)


@pytest.fixture
def served(tmp_path: Path, quick: Config, scorer: Scorer) -> Iterator[Served]:
    with serving(tmp_path / "out", quick, scorer) as found:
        yield found


def test_eight_clients_at_once_each_get_the_answer_of_their_study(served: Served, tmp_path: Path) -> None:
    studies = [write_head(tmp_path / f"in{n}", n, damaged=n == 5) for n in range(8)]
    answers: dict[int, dict] = {}

    def client(n: int) -> None:
        folder = tmp_path / f"in{n}"
        if n % 2:
            reply = served.post(zipped(folder), "application/zip")
        else:
            parts = [("files", (f.name, f.read_bytes())) for f in sorted(folder.iterdir())]
            reply = served.post(None, files=parts)
        assert reply.status_code == 202, reply.text
        (found,) = reply.json()["studies"]
        answers[n] = served.finished(found["id"])

    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for n, study in enumerate(studies):
        found = StudyState.model_validate(answers[n])
        assert found.study == study
        if n == 5:
            assert (found.state, found.result) == ("failed", None)
            assert found.reason == "no readable CT slice: 4 pixels_truncated"
            continue
        assert found.result is not None
        assert (found.result.patient, found.result.slices) == (f"P{n}", 4)
        (answer,) = (tmp_path / "out" / "answers" / study).iterdir()
        assert found.result == read_results(answer / "result").studies[0]
        page = served.get(f"/studies/{found.id}/report")
        assert page.status_code == 200
        assert study in page.text
    listed = [StudyState.model_validate(each) for each in served.get("/studies?state=answered").json()]
    assert {each.study for each in listed} == set(studies) - {studies[5]}
    worklist = served.get("/worklist")
    assert all(study in worklist.text for study in studies)
    assert f"/studies/{answers[0]['id']}/report" in worklist.text
    assert not list((tmp_path / "out" / "received").iterdir())
    again = served.post(zipped(tmp_path / "in1"), "application/zip").json()["studies"][0]
    assert (again["id"], again["state"]) == (answers[1]["id"], "answered")
    assert Study.model_validate(again["result"]).study == studies[1]


def test_an_upload_may_hold_several_studies_and_other_files(served: Served, tmp_path: Path) -> None:
    studies = {write_head(tmp_path / "in", n) for n in (1, 2)}
    (tmp_path / "in" / "notes.txt").write_text("not DICOM", encoding="utf-8")
    reply = served.post(zipped(tmp_path / "in"), "application/zip")
    assert reply.json()["ignored"] == 1
    assert {each["study"] for each in reply.json()["studies"]} == studies
    one = next((tmp_path / "in").glob("*.dcm")).read_bytes()
    alone = served.post(one, "application/dicom").json()["studies"][0]
    assert served.finished(alone["id"])["result"]["slices"] == 1


def test_what_is_not_a_study_is_refused_with_a_reason(served: Served, tmp_path: Path) -> None:
    import io
    import zipfile

    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.dcm", bytes(40_000_000))
    boundary = "multipart/form-data; boundary=x"
    cases: list[tuple[object, str | None, int, str]] = [
        (b"hello", "text/plain", 415, "not supported"),
        (b"hello", "application/dicom", 422, "StudyInstanceUID"),
        (b"", "application/zip", 400, "no file"),
        (b"PK\3\4 cut", "application/zip", 422, "zip file"),
        (bomb.getvalue(), "application/zip", 422, "refused: it inflates from"),
        (b"hello", "multipart/form-data", 400, "boundary"),
        (b"hello", boundary, 400, "multipart"),
        (b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\nabc', boundary, 400, "too early"),
    ]
    for data, kind, status, words in cases:
        reply = served.post(data, kind)
        assert (reply.status_code, words in reply.json()["detail"]) == (status, True), reply.text
    assert served.get("/studies").json() == []
    assert not list((tmp_path / "out" / "received").iterdir())
    assert served.get("/studies/1").status_code == 404


def test_too_large_is_413_and_a_full_queue_is_429(tmp_path: Path) -> None:
    cfg = load_config(None, ["service.max_upload_mb=1", "service.max_waiting=2", "service.max_files=5"])
    with serving(tmp_path / "out", cfg, None) as served:
        for n in (1, 2):
            write_head(tmp_path / f"in{n}", n)
            assert served.post(zipped(tmp_path / f"in{n}"), "application/zip").status_code == 202
            if n == 1:
                _must_be_413(served, tmp_path)
        full = served.post(zipped(tmp_path / "in1"), "application/zip")
        assert (full.status_code, int(full.headers["Retry-After"]) > 0) == (429, True)
        assert "2 studies wait" in full.json()["detail"]
        assert 'rsna_seq_studies{state="stable"} 2' in served.get("/metrics").text
        down = served.get("/health")
        assert (down.status_code, down.json()["status"], down.json()["waiting"]) == (503, "down", 2)


def _must_be_413(served: Served, tmp_path: Path) -> None:
    """A body over 1 MB is refused, with its length and without; so are too many files."""
    data = bytes(1_100_000)
    for body in (data, iter([data[:600_000], data[600_000:]])):
        reply = served.post(body, "application/dicom")
        assert (reply.status_code, "max_upload_mb" in reply.text) == (413, True)
    for n in range(10, 12):
        write_head(tmp_path / "many", n)
    many = served.post(zipped(tmp_path / "many"), "application/zip")
    assert (many.status_code, "max_files" in many.text) == (413, True)
    assert not [f for f in (tmp_path / "out" / "received").iterdir() if len(list(f.iterdir())) != 4]


def test_uploads_are_not_held_in_memory(tmp_path: Path, quick: Config) -> None:
    import os

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )

    def body() -> Iterator[bytes]:
        for _ in range(300):
            peak.append(resident())
            yield bytes(1 << 20)

    if not Path("/proc/self/statm").is_file():
        pytest.skip("there is no /proc")
    peak: list[int] = []
    with serving(tmp_path / "out", quick, None) as served:
        before = resident()
        assert served.post(body(), "application/dicom").status_code == 422
    assert max(peak) - before < 50e6


def test_the_token_the_host_and_the_origin_are_checked(tmp_path: Path, quick: Config) -> None:
    token = "a token of the tests"
    with serving(tmp_path / "out", quick, None, token, frozenset({"127.0.0.1"})) as served:
        bare = served.get("/studies")
        assert (bare.status_code, "Bearer" in bare.headers["WWW-Authenticate"]) == (401, True)
        for given in (f"Bearer {token}x", "Bearer", "Basic ???", "Digest x"):
            assert served.get("/studies", headers={"Authorization": given}).status_code == 401
        assert served.get("/studies", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        assert served.get("/worklist", auth=("anyone", token)).status_code == 200
        assert served.get("/health").status_code == 503
        right = {"Authorization": f"Bearer {token}"}
        assert served.get("/studies", headers={**right, "Host": "other.example"}).status_code == 400
        assert served.get("/studies", headers={**right, "Origin": "http://other.example"}).status_code == 403
        assert served.get("/studies", headers={**right, "Origin": served.url}).status_code == 200
        shown = served.get("/worklist", headers=right).headers
        assert "default-src 'none'" in shown["Content-Security-Policy"]
        assert served.get("/docs", headers=right).status_code == 404


def test_no_request_that_the_openapi_allows_or_forbids_is_a_server_error(
    served: Served, tmp_path: Path
) -> None:
    write_head(tmp_path / "in", 1)
    served.finished(served.post(zipped(tmp_path / "in"), "application/zip").json()["studies"][0]["id"])
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    operations = [each.ok() for each in schema.get_all_operations()]
    assert {(o.method.upper(), o.path) for o in operations} == {
        ("POST", "/studies"),
        *(("GET", p) for p in ("/studies", "/studies/{number}", "/studies/{number}/report")),
        *(("GET", p) for p in ("/worklist", "/health", "/metrics")),
    }
    positive, negative = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
    for operation in operations:
        assert _sent(operation, positive) > 0
        invalid = _sent(operation, negative)  # an operation without parameters has no invalid requests
        assert invalid > 0 or "{number}" not in operation.path


def _sent(operation: Any, mode: Any) -> int:
    """Send requests of an operation, none of which may be a server error, and return their number."""
    count = 0

    @settings(
        max_examples=12,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        nonlocal count
        count += 1
        reply = case.call()
        assert reply.status_code < 500, reply.text
        if reply.status_code < 300:
            case.validate_response(reply)

    with suppress(Unsatisfiable):
        check()
    return count
