"""Takes studies from the queue, scores them, sends the results; a study that fails never stops the others."""

import shutil
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rsna_seq.clinic.identifiers import valid_uid
from rsna_seq.config import ServiceConfig
from rsna_seq.console import say
from rsna_seq.errors import (
    EnvironmentFaultError,
    IntegrityError,
    NothingUsableError,
    RsnaSeqError,
    UsageError,
)
from rsna_seq.service.jobs import Job, State
from rsna_seq.service.queue import Queue
from rsna_seq.service.scorer import DICOM, Scorer, read_written

ANSWERS = "answers"
"""Folder with one folder per answered study."""
_LONGEST_WAIT_S = 600.0


class SendError(Exception):
    """Results could not be sent; the message names no credentials."""


class Destination(Protocol):
    """Where results are sent."""

    name: str
    """For messages, without credentials."""

    def send(self, files: Sequence[Path]) -> None:
        """Store DICOM objects; storing the same again changes nothing.

        Raises:
            SendError: Not all were stored.
        """


class Worker:
    """Scores and sends the studies of one queue, one after another.

    Args:
        queue: The queue.
        scorer: The loaded model.
        out: The folder of the service; answers are below ``answers``.
        cfg: Numbers of tries.
        destination: Where results are sent, or None.
        title: Name of the command, for log lines.
    """

    def __init__(
        self,
        queue: Queue,
        scorer: Scorer,
        out: Path,
        cfg: ServiceConfig,
        *,
        destination: Destination | None = None,
        title: str = "watch",
    ) -> None:
        self.queue, self.scorer, self.out, self.cfg = queue, scorer, out, cfg
        self.destination, self.title = destination, title
        self.scored, self.seconds = 0, 0.0
        """Number of studies that were scored or have failed here, and the time that this took."""

    def recover(self) -> None:
        """Take back studies that a process scored when it was killed; call it before :meth:`step`."""
        for job in self.queue.recover(self.cfg.tries):
            self._say(job, f"failed: {job.reason}")

    def step(self) -> bool:
        """Send the results of one study that are due, and score one study.

        Returns:
            Whether there was anything to do.
        """
        late = self.queue.next_to_send() if self.destination else None
        if late is not None:
            self._send(late, time.monotonic())
        job = self.queue.claim()
        if job is not None:
            start = time.monotonic()
            self._score(job)
            self.scored, self.seconds = self.scored + 1, self.seconds + time.monotonic() - start
        return late is not None or job is not None

    def _score(self, job: Job) -> None:
        """Score one study; whatever happens, it gets a state."""
        start = time.monotonic()
        place = Path(ANSWERS) / valid_uid(job.study) / str(job.digest)[:16]
        try:
            answer = self.scorer.answer(job.files, self.out / place)
        except (NothingUsableError, UsageError) as error:
            self._fail(job, str(error))
            self._release(job)
            return
        except Exception as error:
            self._again(job, State.STABLE, _words(error), job.tries, self.cfg.tries)
            return
        self.queue.answered(job.id, place, to_send=self.destination is not None)
        self._release(job)
        done = self.queue.job(job.id)
        if done is None or self.destination is None:
            self._say(job, f"{answer.line}, {time.monotonic() - start:.1f} s")
        else:
            self._send(done, start, f"{answer.line}, ")

    def _send(self, job: Job, start: float, line: str = "") -> None:
        """Send the DICOM results of one study."""
        assert self.destination is not None
        folder = self.out / (job.answer or "")
        written = read_written(folder)
        if written is None or not written.files:
            reason = "they were deleted" if written is None else written.reason
            self._fail(job, f"answered, but there are no DICOM results to send: {reason}")
            return
        try:
            self.destination.send([folder / DICOM / name for name in written.files])
        except (SendError, OSError) as error:
            reason = f"answered, but not sent: {error}"
            self._again(job, State.ANSWERED, reason, job.sends + 1, self.cfg.send_tries)
            return
        self.queue.sent(job.id)
        what = f"{len(written.files):,} objects sent to {self.destination.name}"
        self._say(job, f"{line}{what}, {time.monotonic() - start:.1f} s")

    def _again(self, job: Job, state: State, reason: str, tries: int, most: int) -> None:
        """Try a study again later; after the last try it has failed."""
        if tries >= most:
            self._fail(job, f"{reason} (tried {tries:,} times)")
            return
        wait_s = min(self.cfg.retry_s * 2.0 ** min(tries - 1, 20), _LONGEST_WAIT_S)
        self.queue.again(job.id, state, reason, wait_s)
        self._say(job, f"{reason}; tried again in {wait_s:,.0f} s")

    def _fail(self, job: Job, reason: str) -> None:
        self.queue.failed(job.id, reason)
        self._say(job, f"failed: {reason}")

    def _release(self, job: Job) -> None:
        """Delete the folder that belongs to a study, whose instances are not needed any more."""
        if job.folder is not None and not self.cfg.keep_received:
            shutil.rmtree(job.folder, ignore_errors=True)

    def _say(self, job: Job, text: str) -> None:
        say(self.title, f"study {job.study}: {text}")


def _words(error: Exception) -> str:
    """What happened, without a message that could quote the study."""
    if isinstance(error, (EnvironmentFaultError, IntegrityError)):
        return str(error)
    if isinstance(error, (MemoryError, RsnaSeqError)):
        return str(error) or "out of memory"
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__} ({where})"
    return f"unexpected error {type(error).__name__} at {where}; this is a bug in rsna_seq"
