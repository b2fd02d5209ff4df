"""The command ``serve``: it starts on loopback, answers, takes over from ``watch``, and ends when told to."""

import re
import signal
import threading
from pathlib import Path

import pytest
import requests
from served import zipped
from studies import QUICK, start, states_of, wait_for, write_head

from rsna_seq.config import Config
from rsna_seq.errors import UsageError
from rsna_seq.service import serve
from rsna_seq.service.guard import TOKEN
from rsna_seq.service.queue import QUEUE, Queue
from rsna_seq.service.scorer import Scorer
from rsna_seq.service.worker import Worker
from rsna_seq.store.files import locked


@pytest.mark.service
def test_the_command_answers_an_upload_and_ends_with_0_on_sigterm(tmp_path: Path) -> None:
    study = write_head(tmp_path / "in", 1)
    process = start("serve", "--out", tmp_path / "out", "--port", 0, *QUICK)
    assert process.stdout is not None
    try:
        lines: list[str] = []
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", lines[-1] if lines else "")):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        reply = requests.post(
            f"{found[0]}/studies",
            zipped(tmp_path / "in"),
            headers={"Content-Type": "application/zip"},
            timeout=60,
        )
        assert reply.status_code == 202
        wait_for(lambda: states_of(tmp_path / "out") == {study: ["answered"]})
        assert requests.get(f"{found[0]}/health", timeout=60).json()["status"] == "ok"
        process.send_signal(signal.SIGTERM)
        said = "".join(lines) + process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert f"study {study}: any 0." in said
    assert "synthetic studies (phantoms) only" in " ".join(said.split())


def test_other_hosts_need_a_token_and_a_taken_port_is_told(
    tmp_path: Path, quick: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.delenv(TOKEN, raising=False)
    with pytest.raises(UsageError, match=f"set {TOKEN}"):
        serve.run(quick, tmp_path / "out", host="0.0.0.0")
    monkeypatch.setenv(TOKEN, "short")
    with pytest.raises(UsageError, match="fewer than 16"):
        serve.run(quick, tmp_path / "out")
    monkeypatch.delenv(TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="another --port"):
        serve.run(quick, tmp_path / "out", port=taken.getsockname()[1])
    assert not (tmp_path / "out").exists()


def test_it_scores_only_while_no_other_process_does(
    tmp_path: Path, quick: Config, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_FAULT_S", 0.05)
    study, stop = write_head(tmp_path / "in", 1), threading.Event()
    (tmp_path / "out").mkdir()
    queue = Queue(tmp_path / "out" / QUEUE)
    queue.complete(("s", "k", study), "d" * 64, [tmp_path / "in"])
    with locked(tmp_path / "out"):  # as `watch` holds it
        work = serve.Work(Worker(queue, scorer, tmp_path / "out", quick.service, title="serve"), stop)
        work.start()
        stop.wait(0.3)
        assert states_of(tmp_path / "out") == {study: ["stable"]}
    wait_for(lambda: states_of(tmp_path / "out") == {study: ["answered"]})
    stop.set()
    work.join(30)
    assert not work.is_alive()
