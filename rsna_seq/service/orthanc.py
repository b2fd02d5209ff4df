"""The REST interface of an Orthanc server, as far as ``watch`` uses it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.service.addresses import Address, is_loopback

MARK = 4173
"""Number of the user-defined metadata (1024 to 65535) of Orthanc by which series of results are known."""
MARKED = "rsna_seq result"
_TIMEOUT_S = (5.0, 60.0)
"""Seconds for connecting, and between two bytes of a reply."""
_BLOCK = 1 << 20
_TRIES, _SAFE = 3, frozenset({"GET", "PUT"})
"""Tries, and the methods that are tried again: a server may close an idle connection just when the next
request is sent, which then gets no reply. Others are tried again by the queue."""


def new_session(address: Address, auth: tuple[str, str] | None) -> Any:
    """A session of ``requests`` for one server.

    Args:
        address: The server; the proxies of the environment are not used for this machine.
        auth: User and password, or None.

    Raises:
        EnvironmentFaultError: The package is not installed.
    """
    try:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry
    except ImportError as error:
        raise EnvironmentFaultError(
            "the package requests is not installed; run: pip install 'rsna-seq[clinic]'"
        ) from error
    again = Retry(
        total=_TRIES - 1, connect=0, status=0, redirect=0, backoff_factor=0.1, allowed_methods=_SAFE
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=again))
    session.trust_env = not is_loopback(address.host)
    session.auth = auth
    return session


class HttpError(Exception):
    """A request failed; the message names the method, the path and the status, and no credentials.

    Attributes:
        status: HTTP status; 0 if there was no reply.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Orthanc:
    """An Orthanc server.

    Args:
        address: Its address.
        auth: User and password, or None.
    """

    def __init__(self, address: Address, auth: tuple[str, str] | None) -> None:
        self.address, self.session = address, new_session(address, auth)

    def get(self, path: str, **parameters: object) -> Any:
        """JSON of a resource; None if it does not exist.

        Args:
            path: Path, such as ``/changes``.
            **parameters: Parameters of the query.

        Raises:
            HttpError: The server cannot be reached, or replies with an error.
        """
        reply = self._ask("GET", path, params=parameters)
        return None if reply.status_code == 404 else _json(reply)

    def text(self, path: str) -> str | None:
        """Text of a resource; None if it does not exist."""
        reply = self._ask("GET", path)
        return None if reply.status_code == 404 else str(reply.text)

    def post(self, path: str, data: bytes) -> Any:
        """Post bytes, and return the JSON of the reply.

        Raises:
            HttpError: As :meth:`get`; also if the resource does not exist.
        """
        reply = self._ask("POST", path, data=data)
        if reply.status_code == 404:
            raise HttpError(f"POST {path}: not found", 404)
        return _json(reply)

    def put(self, path: str, text: str) -> None:
        """Put a text.

        Raises:
            HttpError: As :meth:`post`.
        """
        if self._ask("PUT", path, data=text.encode()).status_code == 404:
            raise HttpError(f"PUT {path}: not found", 404)

    def download(self, path: str, target: Path, most: int) -> int:
        """Write a resource into a file.

        Args:
            path: Path of the resource.
            target: The file.
            most: Largest number of bytes.

        Returns:
            Number of bytes; -1 if the resource does not exist, ``most + 1`` if it is too large.

        Raises:
            HttpError: As :meth:`get`.
            OSError: The file cannot be written.
        """
        size = 0
        with self._ask("GET", path, stream=True) as reply, target.open("wb") as file:
            if reply.status_code == 404:
                return -1
            for block in _blocks(reply, path):
                size += len(block)
                if size > most:
                    return most + 1
                file.write(block)
        return size

    def mark(self, instance: str) -> None:
        """Mark the series of a stored result, so that it is not scored.

        Args:
            instance: SOPInstanceUID of the result.

        Raises:
            HttpError: As :meth:`post`.
        """
        for found in self.post("/tools/lookup", instance.encode()):
            if found["Type"] == "Instance":
                series = self.get(f"/instances/{found['ID']}/series")
                if series:
                    self.put(f"/series/{series['ID']}/metadata/{MARK}", MARKED)

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        import requests

        url = self.address.url + path
        try:
            reply = self.session.request(method, url, timeout=_TIMEOUT_S, allow_redirects=False, **options)
        except requests.RequestException as error:
            raise HttpError(f"{method} {self.address.url}{path}: {type(error).__name__}") from None
        if reply.status_code != 404 and not 200 <= reply.status_code < 300:
            raise HttpError(f"{method} {url}: HTTP status {reply.status_code}", reply.status_code)
        return reply


def _json(reply: Any) -> Any:
    try:
        return reply.json()
    except ValueError:
        raise HttpError(f"{reply.url}: the reply is not JSON; is this an Orthanc server?") from None


def _blocks(reply: Any, path: str) -> Iterator[bytes]:
    import requests

    try:
        yield from reply.iter_content(_BLOCK)
    except requests.RequestException as error:
        raise HttpError(f"GET {path}: {type(error).__name__}") from None
