"""Addresses that a user gives to ``watch``: where studies come from, and where results go."""

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from rsna_seq.errors import UsageError

USER, PASSWORD = "RSNA_SEQ_USER", "RSNA_SEQ_PASSWORD"
"""Environment variables with the credentials of the source, and of a destination on the same server."""
SEND_USER, SEND_PASSWORD = "RSNA_SEQ_SEND_USER", "RSNA_SEQ_SEND_PASSWORD"
"""Environment variables with the credentials of another destination."""
DEFAULT_AET = "RSNA_SEQ"
_DICOM_PORT = 11112
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Address:
    """A server.

    Attributes:
        scheme: ``http``, ``https`` or ``dicom``.
        host: Name or IP address.
        port: The port.
        path: Path of a URL, without a slash at the end.
        aet: Application entity title of a DICOM address.
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    aet: str = DEFAULT_AET

    @property
    def url(self) -> str:
        """The address as text; it holds no credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.aet}@" if self.scheme == "dicom" else ""
        return f"{self.scheme}://{user}{host}:{self.port}{self.path}"


def is_address(text: str) -> bool:
    """Whether a text is an address and not the path of a folder."""
    return text.split("://", 1)[0] in {"http", "https", "dicom"} and "://" in text


def parse_address(text: str, what: str) -> Address:
    """Read an address.

    Args:
        text: ``http://host:port/path``, ``https://...`` or ``dicom://AET@host:port``.
        what: The option that it comes from.

    Raises:
        UsageError: It is none of these, or contains a password.
    """
    if not is_address(text):
        raise UsageError(
            f"{what}: not an address; give http://HOST:PORT, https://HOST:PORT or dicom://AET@HOST:PORT"
        )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UsageError(f"{what}: the address is not valid: {error}") from None
    if not host:
        raise UsageError(f"{what}: {parts.scheme}:// names no host")
    if parts.scheme == "dicom":
        aet = (parts.username or DEFAULT_AET).strip()
        if parts.password or not aet or len(aet) > 16 or "\\" in aet or not aet.isprintable():
            raise UsageError(f"{what}: the AE title of dicom://AET@{host} has 1 to 16 characters")
        return Address("dicom", host, port or _DICOM_PORT, aet=aet)
    if parts.username or parts.password:
        raise UsageError(
            f"{what}: an address must not contain credentials, which other users of the machine could see; "
            f"set {USER} and {PASSWORD}, or {SEND_USER} and {SEND_PASSWORD}"
        )
    standard = {"http": 80, "https": 443}[parts.scheme]
    return Address(parts.scheme, host, port or standard, parts.path.rstrip("/"))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine only."""
    return host in _LOOPBACK or host.startswith("127.")


def credentials(*, send: bool = False, same: bool = False) -> tuple[str, str] | None:
    """User and password from the environment, or None.

    Args:
        send: Those of the destination of ``--send``.
        same: The destination is the server of the source, whose credentials it may use.
    """
    pairs = [(SEND_USER, SEND_PASSWORD)] if send else [(USER, PASSWORD)]
    pairs += [(USER, PASSWORD)] if send and same else []
    for user, password in pairs:
        if os.environ.get(user):
            return os.environ[user], os.environ.get(password, "")
    return None
