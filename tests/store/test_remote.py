"""Bundles on the internet: downloaded once, by the published digest, and nothing else is opened."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rsna_seq.errors import EnvironmentFaultError, IntegrityError, UsageError
from rsna_seq.models import PACKAGED
from rsna_seq.store.bundle import read_bundle
from rsna_seq.store.remote import local_model
from rsna_seq.tools import commands

BUNDLE = PACKAGED.read_bytes()
DIGEST = read_bundle(PACKAGED).digest


class Host(ThreadingHTTPServer):
    """A server of one bundle on loopback, which records what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    """``/model.zip`` and what Hugging Face answers for a file: a redirect to it."""

    server: Host

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if self.path == "/owner/repo/resolve/v1/models/a.zip":
            self._redirect(f"{self.server.address}/model.zip")
        elif self.path == "/insecure.zip":
            self._redirect("http://example.invalid/model.zip")
        elif self.path in {"/model.zip", "/short.zip"}:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BUNDLE)))
            self.end_headers()
            self.wfile.write(BUNDLE if self.path == "/model.zip" else BUNDLE[:1000])
        elif self.path == "/page.zip":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>please log in</html>")
        else:
            self.send_error(404)

    def _redirect(self, place: str) -> None:
        self.send_response(302)
        self.send_header("Location", place)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Print nothing."""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Host() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def _kept(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_a_bundle_is_downloaded_once_and_kept_by_its_digest(host: Host, tmp_path: Path) -> None:
    first = local_model(f"{host.address}/model.zip#{DIGEST}")
    assert first == tmp_path / "cache" / "rsna_seq" / "bundles" / f"{DIGEST}.zip"
    assert first.read_bytes() == BUNDLE
    assert local_model(f"{host.address}/model.zip#{DIGEST}") == first
    assert len(host.asked) == 1


def test_a_copy_that_was_damaged_is_downloaded_again(host: Host) -> None:
    kept = local_model(f"{host.address}/model.zip#{DIGEST}")
    other = bytearray(BUNDLE)
    other[-40:] = bytes(40)
    kept.write_bytes(other)
    assert local_model(f"{host.address}/model.zip#{DIGEST}").read_bytes() == BUNDLE
    assert len(host.asked) == 2


def test_a_file_of_hugging_face_is_read_at_its_revision(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", host.address)
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert local_model(f"hf://owner/repo/models/a.zip@v1#{DIGEST}").read_bytes() == BUNDLE
    assert host.asked == [("/owner/repo/resolve/v1/models/a.zip", "Bearer secret"), ("/model.zip", None)]


def test_a_file_with_another_digest_is_not_kept(host: Host, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=f"its digest is {DIGEST}, not {'0' * 64}"):
        local_model(f"{host.address}/model.zip#{'0' * 64}")
    assert _kept(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("/none.zip", EnvironmentFaultError, "answers 404"),
        ("/short.zip", EnvironmentFaultError, "ended early|cannot be downloaded"),
        ("/page.zip", IntegrityError, "is no bundle"),
        ("/insecure.zip", UsageError, "only https addresses"),
    ],
)
def test_a_failed_download_leaves_nothing(
    path: str, error: type[Exception], words: str, host: Host, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        local_model(f"{host.address}{path}#{DIGEST}")
    assert _kept(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("https://example.invalid/model.zip", "the digest is missing"),
        ("https://example.invalid/model.zip#12ab", "the digest is missing"),
        (f"http://example.invalid/model.zip#{DIGEST}", "only https addresses"),
        (f"hf://owner/model.zip#{DIGEST}", "expected hf://OWNER/REPOSITORY"),
    ],
)
def test_a_reference_that_is_incomplete_is_refused(reference: str, words: str, host: Host) -> None:
    with pytest.raises(UsageError, match=words):
        local_model(reference)
    assert host.asked == []


def test_a_server_that_cannot_be_reached_is_named(host: Host) -> None:
    gone = f"http://127.0.0.1:9/model.zip#{DIGEST}"
    with pytest.raises(EnvironmentFaultError, match="cannot be downloaded"):
        local_model(gone)


def test_a_path_stays_a_path() -> None:
    assert local_model("runs/x") == Path("runs/x")
    assert local_model(Path("runs/x")) == Path("runs/x")


def test_info_describes_a_bundle_on_the_internet(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    commands.info(f"{host.address}/model.zip#{DIGEST}", as_json=True)
    assert json.loads(capsys.readouterr().out)["digest"] == DIGEST
