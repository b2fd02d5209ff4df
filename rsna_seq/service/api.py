"""The HTTP interface of ``serve``: uploads go to the queue, answers come from it; nothing is scored here.

Bodies are written to the disk as they arrive, so the memory does not depend on their size. What may take long
runs in threads, so the event loop is never blocked.
"""

import asyncio
import math
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as Parameter
from fastapi import Query as Asked
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from rsna_seq.config import ServiceConfig
from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.service.guard import Guard
from rsna_seq.service.jobs import Job, State
from rsna_seq.service.metrics import metrics_text
from rsna_seq.service.queue import Queue
from rsna_seq.service.source import Inbox, TooLargeError, must_have_room
from rsna_seq.service.uploads import Sorted, Upload, UploadError, sort_upload
from rsna_seq.service.view import StudyState, View
from rsna_seq.store.provenance import package_version

_FIRST_GUESS_S = 5.0
"""Time per study for ``Retry-After``, before one was scored."""
_LINGER_S = 5.0
Number = Annotated[int, Parameter(ge=1, lt=2**63, description="Number of the study in the queue.")]
Responses = dict[int | str, dict[str, Any]]
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
        "required": ["files"],
    }
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/zip": _BINARY,
            "application/dicom": _BINARY,
            "application/octet-stream": _BINARY,
            "multipart/form-data": _FORM,
        },
    }
}


class Uploaded(BaseModel):
    """What an upload has brought."""

    studies: list[StudyState]
    """Its studies; those that were answered before have their result."""
    ignored: int
    """Number of files that belong to no study."""


class Health(BaseModel):
    """Whether studies are scored."""

    status: str
    """``ok`` or ``down``."""
    version: str
    """Version of rsna_seq."""
    waiting: int
    """Number of studies that wait to be scored."""


class Refusal(BaseModel):
    """Why a request was refused."""

    detail: str


@dataclass
class Progress:
    """What the process that scores has done; filled by its thread."""

    working: Callable[[], bool] = lambda: False
    scored: Callable[[], int] = lambda: 0
    seconds: Callable[[], float] = lambda: 0.0


@dataclass
class Service:
    """What the interface works on.

    Attributes:
        queue: The queue.
        out: The folder of the service.
        cfg: Limits.
        token: The token, or None where none is needed.
        hosts: Names of this server in the ``Host`` header; empty allows all.
        progress: Of the thread that scores.
        uploading: Number of uploads in progress.
    """

    queue: Queue
    out: Path
    cfg: ServiceConfig
    token: str | None = None
    hosts: frozenset[str] = frozenset()
    progress: Progress = field(default_factory=Progress)
    uploading: int = 0

    def __post_init__(self) -> None:
        self.inbox = Inbox(self.out, self.cfg)
        self.view = View(self.queue, self.out, lambda job: f"/studies/{job.id}/report")

    def retry_after(self) -> str:
        """Seconds after which there is probably room."""
        each = self.progress.seconds() / (self.progress.scored() or 1) or _FIRST_GUESS_S
        return str(max(1, math.ceil(each)))


def make_app(service: Service) -> Any:
    """The application, for an ASGI server.

    Args:
        service: What it works on.
    """
    app = FastAPI(
        title="rsna_seq",
        version=package_version(),
        summary="Intracranial haemorrhage on head CT. For research only; not a medical device.",
        docs_url=None,  # its page would load scripts from another host
        redoc_url=None,
        responses={code: {"model": Refusal} for code in (400, 401, 403)},
    )

    _add_upload(app, service)
    _add_studies(app, service)
    _add_pages(app, service)
    return Guard(app, service.token, service.hosts)


def _add_upload(app: FastAPI, service: Service) -> None:
    refusals: Responses = {
        code: {"model": Refusal, "description": words}
        for code, words in {
            413: "The upload or a study in it is too large.",
            415: "The content type is not supported.",
            422: "The upload contains no study, or an archive that is refused.",
            429: "The queue is full, or too many uploads are in progress; see Retry-After.",
            507: "The disk is full.",
        }.items()
    }

    @app.post("/studies", status_code=202, responses=refusals, openapi_extra=_BODY)
    async def upload(request: Request) -> Uploaded:
        """Upload one or more studies: a zip file, a DICOM file, or several files as multipart."""
        try:
            brought = await _received(request, service)
        except HTTPException:
            await _drain(request)
            raise

        def states() -> list[StudyState]:
            jobs = [job for number in brought.jobs if (job := service.queue.job(number))]
            return [service.view.state(job) for job in jobs]

        return Uploaded(studies=await run_in_threadpool(states), ignored=brought.ignored)


async def _received(request: Request, service: Service) -> Sorted:
    """Receive an upload, or refuse it."""
    _must_have_room(service, request)
    service.uploading += 1
    try:
        return await _receive(request, service)
    except TooLargeError as error:
        raise HTTPException(413, str(error)) from None
    except UploadError as error:
        raise HTTPException(error.status, str(error)) from None
    except ClientDisconnect:
        raise HTTPException(400, "the connection was closed") from None
    except (EnvironmentFaultError, OSError):
        raise HTTPException(507, "the disk of the server is full") from None
    finally:
        service.uploading -= 1


async def _drain(request: Request) -> None:
    """Drop the rest of a refused body for a while: a client that still sends does not read the reply."""
    with suppress(ClientDisconnect, TimeoutError, RuntimeError):
        async with asyncio.timeout(_LINGER_S):
            async for _ in request.stream():
                pass


def _must_have_room(service: Service, request: Request) -> None:
    """Refuse an upload before its body is read."""
    cfg, later = service.cfg, {"Retry-After": service.retry_after()}
    if service.uploading >= cfg.max_uploads:
        raise HTTPException(429, f"{service.uploading:,} uploads are in progress; try again later", later)
    waiting = service.queue.waiting() + service.uploading
    if waiting >= cfg.max_waiting:
        raise HTTPException(429, f"{waiting:,} studies wait; try again later", later)
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > cfg.max_upload_mb * 1_000_000:
        raise HTTPException(413, f"more than {cfg.max_upload_mb:,} MB (service.max_upload_mb)")


async def _receive(request: Request, service: Service) -> Sorted:
    """Write the body to the disk, and sort it into studies."""
    folder = await run_in_threadpool(service.inbox.new)
    upload: Upload | None = None
    try:
        must_have_room(folder)
        upload = Upload(folder, request.headers.get("content-type", ""), service.inbox)
        async for chunk in request.stream():
            if chunk:
                await run_in_threadpool(upload.write, chunk)
        upload.finish()
        return await run_in_threadpool(sort_upload, upload, service.queue, service.inbox)
    finally:
        if upload is not None:
            upload.close()
        await run_in_threadpool(shutil.rmtree, folder, ignore_errors=True)


def _add_studies(app: FastAPI, service: Service) -> None:
    absent: Responses = {404: {"model": Refusal, "description": "There is no such study."}}

    @app.get("/studies")
    def studies(
        limit: Annotated[int, Asked(ge=1, le=1000)] = 100, state: State | None = None
    ) -> list[StudyState]:
        """List the studies that were received last, the latest first."""
        return service.view.states(limit, state)

    @app.get("/studies/{number}", responses=absent)
    def study(number: Number) -> StudyState:
        """Get the state of a study, and its result as in ``studies.json``."""
        return service.view.state(_found(service, number))

    @app.get("/studies/{number}/report", responses=absent, response_class=HTMLResponse)
    def report(number: Number) -> Response:
        """Get the page of an answered study."""
        job = _found(service, number)
        page = service.view.report(job)
        if page is None:
            raise HTTPException(404, f"the study has no report; its state is {job.state.value}")
        return FileResponse(page, media_type="text/html")


def _add_pages(app: FastAPI, service: Service) -> None:
    down: Responses = {503: {"model": Health, "description": "No studies are scored."}}

    @app.get("/worklist", response_class=HTMLResponse)
    def worklist() -> HTMLResponse:
        """Get the studies in order of urgency, as a page."""
        return HTMLResponse(service.view.page(service.cfg.listed))

    @app.get("/health", response_model=Health, responses=down)
    def health() -> Response:
        """Tell whether studies are scored; needs no token."""
        up = service.progress.working()
        found = Health(
            status="ok" if up else "down", version=package_version(), waiting=service.queue.waiting()
        )
        return JSONResponse(found.model_dump(), 200 if up else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> PlainTextResponse:
        """Get the numbers of the service for Prometheus."""
        progress = service.progress
        text = metrics_text(
            service.queue.counts(),
            unsent=service.queue.unsent(),
            uploading=service.uploading,
            working=progress.working(),
            seconds=progress.seconds(),
            scored=progress.scored(),
        )
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def _found(service: Service, number: int) -> Job:
    job = service.queue.job(number)
    if job is None:
        raise HTTPException(404, f"there is no study {number:,}")
    return job
