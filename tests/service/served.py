"""``serve`` on loopback and a free port, in this process, with a model that is loaded already."""

import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
import uvicorn
from studies import wait_for

from rsna_seq.config import Config
from rsna_seq.service.api import Service, make_app
from rsna_seq.service.queue import QUEUE, Queue
from rsna_seq.service.scorer import Scorer
from rsna_seq.service.serve import Work
from rsna_seq.service.worker import Worker


class Served:
    """A server that runs.

    Attributes:
        url: Its address.
        service: What it works on.
    """

    def __init__(self, url: str, service: Service) -> None:
        self.url, self.service = url, service

    def get(self, path: str, **options: object) -> requests.Response:
        return requests.get(self.url + path, timeout=60, **options)  # type: ignore[arg-type]

    def post(self, data: object, kind: str | None = None, **options: object) -> requests.Response:
        headers = {"Content-Type": kind} if kind else {}
        return requests.post(
            f"{self.url}/studies",
            data=data,
            headers=headers,
            timeout=60,
            **options,  # type: ignore[arg-type]
        )

    def finished(self, number: int) -> dict:
        """Wait for the answer of a study."""
        wait_for(lambda: self.get(f"/studies/{number}").json()["state"] in {"answered", "failed"})
        found: dict = self.get(f"/studies/{number}").json()
        return found


@contextmanager
def serving(
    out: Path,
    cfg: Config,
    scorer: Scorer | None,
    token: str | None = None,
    hosts: frozenset[str] = frozenset(),
) -> Iterator[Served]:
    """Serve; without a scorer, studies wait for ever.

    Args:
        out: The folder of the service.
        cfg: Limits.
        scorer: The model.
        token: The token, or None.
        hosts: Names of the server.
    """
    out.mkdir(exist_ok=True)
    stop, queue = threading.Event(), Queue(out / QUEUE)
    service = Service(queue, out, cfg.service, token, hosts)
    work = None
    if scorer is not None:
        work = Work(Worker(queue, scorer, out, cfg.service, title="serve"), stop)
        service.progress = work.progress()
        work.start()
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(make_app(service), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", service)
    finally:
        server.should_exit = True
        thread.join(60)
        stop.set()
        if work is not None:
            work.join(60)
        queue.close()
        listening.close()


def zipped(folder: Path) -> bytes:
    """The files of a folder as a zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return buffer.getvalue()
