"""What a reader sees of the queue: the state and result of each study, and the worklist."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from rsna_seq.clinic.results import RESEARCH_ONLY, Model, Results, Study
from rsna_seq.errors import IntegrityError
from rsna_seq.report.worklist import WorklistRow, row_of, worklist_html
from rsna_seq.service.jobs import Job, State
from rsna_seq.service.queue import Queue
from rsna_seq.service.scorer import RESULT, read_answer

_KEPT = 1000
"""Number of results that are kept in memory."""
_FINISHED = {State.ANSWERED, State.SENT, State.FAILED}


class StudyState(BaseModel):
    """A study in the queue, with its result."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: int
    """Number of the study in the queue."""
    study: str
    """StudyInstanceUID, as in the input."""
    state: State
    """``received``, ``stable`` (complete, waits), ``scoring``, ``answered``, ``sent`` or ``failed``."""
    reason: str | None
    """Why it has failed, or why the last try has."""
    received: str
    """Time at which the first instance was seen, as ISO 8601 in UTC."""
    answered: str | None
    """Time at which the results were written."""
    sent: str | None
    """Time at which the results were stored at the destination."""
    report: str | None
    """Path of the page of the study."""
    result: Study | None
    """The study as in ``studies.json``; null until it is answered."""
    notices: list[str]
    """What a reader must know, such as that the model has seen phantoms only."""
    models: list[Model]
    """The models whose probabilities were averaged."""


class View:
    """The studies of a queue as a reader sees them; results are read once.

    Args:
        queue: The queue.
        out: The folder of the service.
        href: The link to the page of an answered study.
    """

    def __init__(self, queue: Queue, out: Path, href: Callable[[Job], str]) -> None:
        self.queue, self.out, self.href = queue, out, href
        self._results: OrderedDict[int, Results] = OrderedDict()

    def states(self, limit: int, state: State | None = None) -> list[StudyState]:
        """The studies that were received last, the latest first.

        Args:
            limit: At most so many studies are looked at.
            state: Only studies in this state.
        """
        return [self.state(job) for job in self.queue.jobs(limit) if state in {None, job.state}]

    def state(self, job: Job) -> StudyState:
        """One study."""
        results = self._of(job)
        return StudyState(
            id=job.id,
            study=job.study,
            state=job.state,
            reason=job.reason,
            received=_iso(job.received),
            answered=_iso(job.answered) if job.answered else None,
            sent=_iso(job.sent) if job.sent else None,
            report=self.href(job) if results else None,
            result=results.studies[0] if results else None,
            notices=results.notices if results else [],
            models=results.models if results else [],
        )

    def page(self, limit: int) -> str:
        """The worklist as a page: studies in order of urgency."""
        jobs = self.queue.jobs(limit)
        notices = {text: None for job in jobs if (found := self._of(job)) for text in found.notices}
        return worklist_html([self._row(job) for job in jobs], list(notices) or [RESEARCH_ONLY])

    def report(self, job: Job) -> Path | None:
        """The page of an answered study, or None."""
        if job.answer is None:
            return None
        page = self.out / job.answer / RESULT / "report.html"
        return page if page.is_file() else None

    def _row(self, job: Job) -> WorklistRow:
        results = self._of(job)
        if results is None:
            line = f"no answer: {job.reason}" if job.reason else "no answer yet"
            return WorklistRow(job.study, "", job.state.value, None, line, (), None, _iso(job.received))
        row = row_of(results.studies[0], self.href(job), _iso(job.received))
        if job.state == State.ANSWERED and not job.reason:
            return row
        marks = (*row.marks, job.reason) if job.reason else row.marks
        return replace(row, state=job.state.value, marks=marks)

    def _of(self, job: Job) -> Results | None:
        """The results of a study; None until it is answered, or if they cannot be read."""
        if job.answer is None or job.state not in _FINISHED:
            return None
        found = self._results.get(job.id)
        if found is None:
            try:
                found = read_answer(self.out / job.answer)
            except IntegrityError:
                return None
            if found is None or len(found.studies) != 1:
                return None
            self._results[job.id] = found
            while len(self._results) > _KEPT:
                self._results.popitem(last=False)
        return found


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
