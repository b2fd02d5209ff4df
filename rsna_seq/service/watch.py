"""``rsna-seq watch``: studies from a source, one after another, until it is told to stop.

1. The source is looked at every ``service.poll_s`` seconds, and puts complete studies into the queue.
2. Between two looks, studies are scored, and their results written and sent.
3. SIGTERM and Ctrl-C end the command after the study that is being scored. After ``kill -9`` the same command
   goes on: nothing is lost, and nothing is answered twice.
"""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rsna_seq.config import Config
from rsna_seq.console import say
from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.imaging.sources import must_exist
from rsna_seq.models import PHANTOMS_ONLY
from rsna_seq.service.addresses import Address, credentials, is_address, is_loopback, parse_address
from rsna_seq.service.folder_source import FolderSource
from rsna_seq.service.jobs import Job
from rsna_seq.service.orthanc import Orthanc
from rsna_seq.service.orthanc_source import OrthancSource
from rsna_seq.service.queue import QUEUE, Queue
from rsna_seq.service.scorer import RESULT, Scorer
from rsna_seq.service.send import destination_of
from rsna_seq.service.source import Inbox, Source, SourceError
from rsna_seq.service.view import View
from rsna_seq.service.worker import Worker
from rsna_seq.store.files import locked, write_text
from rsna_seq.store.outputs import must_be_safe

WORKLIST = "worklist.html"
KIND = "service"
"""What the folder of a service is called in messages."""


def run(
    cfg: Config,
    source: str,
    out: Path,
    runs: Sequence[Path] = (),
    *,
    send: str | None = None,
    once: bool = False,
) -> dict[str, Any]:
    """Watch a source.

    Args:
        cfg: The resolved config; the section ``service`` has times and limits.
        source: A folder, the address of an Orthanc server, or ``dicom://AET@HOST:PORT`` to listen at.
        out: The folder of the service: the queue, the answers, the worklist.
        runs: Finished runs or bundles, averaged; none for the model in the package.
        send: Address to which DICOM results are sent, or None.
        once: End when everything that is there was answered.

    Returns:
        Number of studies in each state, and of those whose results are not sent yet.

    Raises:
        UsageError: An address or a folder is not usable.
        IntegrityError: A run is not finished, or another ``watch`` uses ``out``.
        EnvironmentFaultError: A package is missing; with ``once``, also if the source cannot be reached or
            results could not be sent.
    """
    place = parse_address(source, "SOURCE") if is_address(source) else None
    target = parse_address(send, "--send") if send else None
    if place is None:
        must_exist(Path(source), "SOURCE")
    must_be_safe(out, KIND, [*([] if place else [Path(source)]), *runs], own=QUEUE)
    _warn_of_plain(*(each for each in (place, target) if each))
    destination = destination_of(target, source=place) if target else None
    with ExitStack() as stack:
        stack.enter_context(locked(out))
        queue = stack.enter_context(closing(Queue(out / QUEUE)))
        scorer = Scorer(cfg, runs, dicom=True if target else None)
        if scorer.phantoms_only:
            say("watch", PHANTOMS_ONLY)
        worker = Worker(queue, scorer, out, cfg.service, destination=destination)
        worker.recover()
        opened = stack.enter_context(closing(_open(source, place, queue, out, cfg, once=once)))
        _Loop(opened, worker, once=once).run(stack.enter_context(stopping()))
        counts = {**queue.counts(), "unsent": queue.unsent()}
    if once and counts["unsent"]:
        raise EnvironmentFaultError(
            f"{counts['unsent']:,} studies were answered, and their results could not be sent; run the same "
            "command again"
        )
    return counts


class _Loop:
    """Looks at the source and works, in turns."""

    def __init__(self, source: Source, worker: Worker, *, once: bool) -> None:
        self.source, self.worker, self.once = source, worker, once
        self._fault = ""
        cfg, queue = worker.cfg, worker.queue
        self._poll_s, self._listed = cfg.poll_s, cfg.listed
        self._view = View(queue, worker.out, lambda job: f"{_quoted(job)}/{RESULT}/report.html")

    def run(self, stop: threading.Event) -> None:
        """Run until ``stop`` is set, or with ``once`` until nothing is left."""
        look, settling = 0.0, True
        while not stop.is_set():
            if time.monotonic() >= look:
                settling = self._look()
                look = time.monotonic() + self._poll_s
            if self.worker.step():
                self._write_page()
            elif self.once and not settling and not self.worker.queue.waiting():
                break
            else:
                stop.wait(max(0.0, look - time.monotonic()))
        self._write_page()

    def _look(self) -> bool:
        """Look at the source; a fault is said once, and the next look may succeed."""
        try:
            settling = self.source.poll()
        except SourceError as error:
            if self.once:
                raise EnvironmentFaultError(str(error)) from error
            if str(error) != self._fault:
                say("watch", f"{error}; tried again every {self._poll_s:g} s")
            self._fault = str(error)
            return True
        if self._fault:
            say("watch", "the source can be reached again")
        self._fault = ""
        return settling

    def _write_page(self) -> None:
        write_text(self.worker.out / WORKLIST, self._view.page(self._listed))


def _open(source: str, place: Address | None, queue: Queue, out: Path, cfg: Config, *, once: bool) -> Source:
    """Open the source that a user names."""
    inbox = Inbox(out, cfg.service)
    inbox.clear(queue)
    if place is None:
        return FolderSource(Path(source), queue, inbox, cfg.service)
    if place.scheme == "dicom":
        from rsna_seq.service.store_source import StoreSource

        return StoreSource(place, queue, inbox, cfg.service)
    return OrthancSource(Orthanc(place, credentials()), queue, inbox, cfg.service, once=once)


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set; a second Ctrl-C ends the command at once."""
    stop = threading.Event()

    def told(number: int, _frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread gets signals
        return
    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _warn_of_plain(*places: Address) -> None:
    """Say where credentials and studies would cross a network unencrypted."""
    for place in places:
        if place.scheme == "http" and not is_loopback(place.host):
            say("watch", f"{place.url} is not encrypted: use https, or only a network that you trust")


def _quoted(job: Job) -> str:
    from urllib.parse import quote

    return quote(str(job.answer))
