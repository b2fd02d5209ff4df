"""``rsna-seq serve``: studies by HTTP, answers as JSON and as pages.

1. The interface (:mod:`rsna_seq.service.api`) puts uploads into the queue and reads answers from it.
2. One thread scores, with a model that stays loaded. Where a ``watch`` with the same ``--out`` runs, that one
   scores, and this process takes over when it ends.
3. SIGTERM and Ctrl-C end the command after the requests in progress and the study that is being scored.
"""

import os
import socket
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rsna_seq.config import Config, ServiceConfig
from rsna_seq.console import say
from rsna_seq.errors import EnvironmentFaultError, IntegrityError, UsageError
from rsna_seq.models import PHANTOMS_ONLY
from rsna_seq.service.addresses import Address, is_loopback, parse_address
from rsna_seq.service.guard import TOKEN
from rsna_seq.service.queue import QUEUE, Queue
from rsna_seq.service.scorer import Scorer
from rsna_seq.service.send import destination_of
from rsna_seq.service.source import Inbox
from rsna_seq.service.watch import KIND, stopping
from rsna_seq.service.worker import Worker
from rsna_seq.store.files import locked
from rsna_seq.store.outputs import must_be_safe

if TYPE_CHECKING:
    from rsna_seq.service.api import Progress, Service

_IDLE_S = 0.2
_FAULT_S = 5.0
_LONGEST_STOP_S = 30
"""Seconds for requests in progress when the command is told to end."""
_SHORTEST_TOKEN = 16
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})


def run(
    cfg: Config,
    out: Path,
    runs: Sequence[Path] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    send: str | None = None,
) -> None:
    """Serve until told to stop.

    Args:
        cfg: The resolved config; the section ``service`` has limits.
        out: The folder of the service: the queue and the answers.
        runs: Finished runs or bundles, averaged; none for the model in the package.
        host: Where to listen; other than loopback, the environment must have a token.
        port: The port; 0 chooses a free one.
        send: Address to which DICOM results are sent, or None.

    Raises:
        UsageError: There is no token, the port is taken, or the folder is not usable.
        EnvironmentFaultError: A package of the extra ``serve`` is missing.
        IntegrityError: A run is not finished.
    """
    _must_have_packages()
    token = _token(host)
    target = parse_address(send, "--send") if send else None
    must_be_safe(out, KIND, runs, own=QUEUE)
    destination = destination_of(target) if target else None
    with closing(_listen(host, port)) as listening, stopping() as stop:
        out.mkdir(parents=True, exist_ok=True)
        with closing(Queue(out / QUEUE)) as queue:
            Inbox(out, cfg.service).clear(queue)
            scorer = Scorer(cfg, runs, dicom=True if target else None)
            if scorer.phantoms_only:
                say("serve", PHANTOMS_ONLY)
            worker = Worker(queue, scorer, out, cfg.service, destination=destination, title="serve")
            work = Work(worker, stop)
            service = _service(queue, out, cfg.service, token, host)
            service.progress = work.progress()
            work.start()
            at = Address("http", host, listening.getsockname()[1])
            say("serve", f"worklist: {at.url}/worklist; Ctrl-C ends it")
            if not stop.is_set():  # it may have been told to end while the model was loaded
                _serve(service, listening)
            stop.set()
            work.join()


class Work(threading.Thread):
    """Scores the studies of the queue while no other process does.

    Args:
        worker: Scores and sends.
        stop: Ends the thread after the study that is being scored.
    """

    def __init__(self, worker: Worker, stop: threading.Event) -> None:
        super().__init__(name="scoring", daemon=True)
        self.worker, self._end, self._told = worker, stop, False

    def progress(self) -> "Progress":
        """What the interface tells of this thread."""
        from rsna_seq.service.api import Progress

        return Progress(self.is_alive, lambda: self.worker.scored, lambda: self.worker.seconds)

    def run(self) -> None:
        """Score until told to stop; a fault, such as a full disk, is said, and the work goes on after it."""
        while not self._end.is_set():
            try:
                with locked(self.worker.out):
                    self.worker.recover()
                    self._work()
            except IntegrityError:
                if not self._told:
                    say("serve", f"another process scores the studies of {self.worker.out}")
                self._told = True
            except Exception as error:
                say("serve", f"scoring was interrupted by {type(error).__name__}; it goes on")
            self._end.wait(_FAULT_S)

    def _work(self) -> None:
        while not self._end.is_set():
            if not self.worker.step():
                self._end.wait(_IDLE_S)


def _must_have_packages() -> None:
    import importlib.util

    missing = [
        package
        for package, module in {
            "fastapi": "fastapi",
            "uvicorn": "uvicorn",
            "python-multipart": "python_multipart",
        }.items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise EnvironmentFaultError(
            f"serve: not installed: {', '.join(missing)}; run: pip install 'rsna-seq[serve]'"
        )


def _token(host: str) -> str | None:
    """The token from the environment; other hosts than loopback need one."""
    token = os.environ.get(TOKEN, "").strip()
    if token and len(token) < _SHORTEST_TOKEN:
        raise UsageError(f"serve: {TOKEN} has fewer than {_SHORTEST_TOKEN} characters; use a longer one")
    if not token and not is_loopback(host):
        raise UsageError(
            f"serve: other machines can reach --host {host}: set {TOKEN} in the environment, such as by "
            f"export {TOKEN}=$(openssl rand -hex 32)"
        )
    return token or None


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"serve: cannot listen at {host}:{port}: {words}; choose another --port") from None


def _service(queue: Queue, out: Path, cfg: ServiceConfig, token: str | None, host: str) -> "Service":
    from rsna_seq.service.api import Service

    hosts = _LOCAL | {host} if is_loopback(host) else frozenset()
    return Service(queue, out, cfg, token, hosts)


def _serve(service: "Service", listening: socket.socket) -> None:
    import uvicorn

    from rsna_seq.service.api import make_app

    config = uvicorn.Config(
        make_app(service),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_LONGEST_STOP_S,
    )
    uvicorn.Server(config).run(sockets=[listening])
