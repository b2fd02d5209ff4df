"""Bundles on the internet: ``https://`` and ``hf://`` references with the digest that was published.

- ``https://HOST/PATH.zip#DIGEST``
- ``hf://OWNER/REPOSITORY/PATH.zip@REVISION#DIGEST``, a file of a model repository on Hugging Face; without
  ``@REVISION`` that of the branch ``main``. ``HF_TOKEN`` is sent for private repositories; ``HF_ENDPOINT``
  names another host.

``DIGEST`` is what ``rsna-seq bundle`` and ``rsna-seq info`` print. A file with another digest is never used.
Downloads are kept in the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``), by digest, so a second
use needs no network.
"""

import os
import re
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from rsna_seq.console import say
from rsna_seq.errors import EnvironmentFaultError, IntegrityError, UsageError
from rsna_seq.store.bundle import SUFFIX, read_bundle
from rsna_seq.store.files import atomic_path
from rsna_seq.store.provenance import package_version

_SCHEMES = ("https://", "http://", "hf://")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HUB = re.compile(r"hf://([^/@#]+/[^/@#]+)/([^@#]+?)(?:@([^#]+))?")
_HUB_HOST = "https://huggingface.co"
_TIMEOUT_S = 30.0
_MOST_BYTES = 20_000_000_000


def is_remote(reference: str | os.PathLike[str]) -> bool:
    """Whether a reference names a bundle on the internet and not a path."""
    return isinstance(reference, str) and reference.startswith(_SCHEMES)


def local_model(reference: str | os.PathLike[str]) -> Path:
    """The path of a run or bundle; a bundle on the internet is downloaded first.

    Args:
        reference: A path, or a reference as described in this module.

    Raises:
        UsageError: The reference is incomplete, or its address is neither https nor on this machine.
        EnvironmentFaultError: The file cannot be downloaded.
        IntegrityError: The file has another digest, or is no bundle.
    """
    if not is_remote(reference):
        return Path(reference)
    address, _, digest = str(reference).partition("#")
    if not _DIGEST.fullmatch(digest):
        raise UsageError(
            f"{reference}: the digest is missing; append # and the 64 characters that were published with "
            "the bundle (rsna-seq bundle and rsna-seq info print them)"
        )
    kept = _cache_folder() / f"{digest}{SUFFIX}"
    if kept.is_file() and _digest_of(kept) == digest:
        return kept
    with atomic_path(kept) as part:
        say("bundle", f"downloading {address}")
        _download(address, part)
        found = _digest_of(part)
        if found is None:
            raise IntegrityError(f"{address}: what was downloaded is no bundle, or damaged")
        if found != digest:
            raise IntegrityError(
                f"{address}: its digest is {found}, not {digest}; it is not the file that was published, "
                "and was not kept"
            )
    return kept


def _digest_of(file: Path) -> str | None:
    """Digest of a bundle; None for another file."""
    try:
        return read_bundle(file).digest
    except IntegrityError:
        return None


def _cache_folder() -> Path:
    """Folder of downloaded bundles."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "rsna_seq" / "bundles"


def _request(address: str) -> urllib.request.Request:
    """The request for a file; a token is sent to the host of the address only, never after a redirect."""
    agent = {"User-Agent": f"rsna_seq/{package_version()}"}
    if not address.startswith("hf://"):
        return urllib.request.Request(_safe(address), headers=agent)
    parts = _HUB.fullmatch(address)
    if parts is None:
        raise UsageError(f"{address}: expected hf://OWNER/REPOSITORY/PATH{SUFFIX}@REVISION")
    repository, path, revision = parts.groups(default="main")
    host = os.environ.get("HF_ENDPOINT", _HUB_HOST).rstrip("/")
    where = f"{host}/{repository}/resolve/{quote(revision, safe='')}/{quote(path)}"
    request = urllib.request.Request(_safe(where), headers=agent)
    if token := os.environ.get("HF_TOKEN"):
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return request


def _safe(address: str) -> str:
    """The address, if it is https or on this machine.

    Raises:
        UsageError: It is neither.
    """
    parts = urlsplit(address)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return address
    raise UsageError(f"{address}: only https addresses are read")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Refuse a redirect to an address that would be refused itself."""
        return super().redirect_request(req, fp, code, msg, headers, _safe(newurl))


def _download(address: str, part: Path) -> None:
    """Write the file at an address to ``part``."""
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        with opener.open(_request(address), timeout=_TIMEOUT_S) as answer, part.open("wb") as out:
            declared, received = answer.headers.get("Content-Length"), 0
            while block := answer.read(1 << 20):
                received += len(block)
                if received > _MOST_BYTES:
                    raise IntegrityError(f"{address}: larger than a bundle may be ({_MOST_BYTES:,} bytes)")
                out.write(block)
        if declared is not None and received != int(declared):
            raise EnvironmentFaultError(f"{address}: the download ended early; try again")
    except urllib.error.HTTPError as error:
        raise EnvironmentFaultError(
            f"{address}: the server answers {error.code} {error.reason}; check the address and its revision"
        ) from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise EnvironmentFaultError(
            f"{address}: cannot be downloaded ({reason}); download the bundle elsewhere and name the file"
        ) from error
