"""Who may use ``serve``: the token, the name of the host, and pages of other sites.

A middleware in plain ASGI, which does not hold the bodies of requests.
"""

import base64
import binascii
import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN = "RSNA_SEQ_TOKEN"
"""Environment variable with the token."""
OPEN = frozenset({"/health"})
"""Paths that need no token."""
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
        b"form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    ),
]
"""Pages contain everything that they need, and load nothing."""


class Guard:
    """Refuses requests that lack the token, name another host, or come from a page of another site.

    Args:
        app: The application.
        token: The token, or None where none is needed.
        hosts: Names in the ``Host`` header that are this server; empty allows all.
    """

    def __init__(self, app: App, token: str | None, hosts: Iterable[str]) -> None:
        self.app, self.token, self.hosts = app, token, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        fault = self._fault(scope)
        if fault is None:
            await self.app(scope, receive, with_headers)
        else:
            await _refuse(with_headers, *fault)

    def _fault(self, scope: Scope) -> tuple[int, str] | None:
        """Status and words of a refusal, or None."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self.hosts and _name(host) not in self.hosts:
            return 400, "the Host header does not name this server"
        origin = headers.get(b"origin")
        if origin is not None and origin.split("://")[-1] != host:
            return 403, "requests from pages of other sites are refused"
        if self.token is None or scope["path"] in OPEN or _has(headers.get(b"authorization", ""), self.token):
            return None
        return 401, f"a token is needed: send 'Authorization: Bearer TOKEN', with the value of {TOKEN}"


def _name(host: str) -> str:
    """A ``Host`` header without its port."""
    return host[: host.rfind("]") + 1] if host.startswith("[") else host.split(":", maxsplit=1)[0]


def _has(header: str, token: str) -> bool:
    """Whether a header contains the token: as bearer, or as the password that a browser asks for."""
    kind, _, given = header.partition(" ")
    if kind.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
    elif kind.lower() != "bearer":
        return False
    return hmac.compare_digest(given.strip().encode(), token.encode())


async def _refuse(send: Send, status: int, words: str) -> None:
    body = json.dumps({"detail": words}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers += [(b"www-authenticate", b'Basic realm="rsna_seq"'), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
