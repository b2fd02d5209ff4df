"""Where results are sent: DICOMweb (STOW-RS), Orthanc, or C-STORE.

Storing an object again changes nothing, because its UID depends on its content. So a study whose results were
sent just before the process was killed is sent again, and is still there once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.service.addresses import Address, credentials
from rsna_seq.service.orthanc import HttpError, Orthanc, new_session
from rsna_seq.service.worker import Destination, SendError

_TIMEOUT_S = 60.0
_PREFIX = "/dicom-web"
"""Path of Orthanc's DICOMweb plugin, if it is not configured otherwise."""


def destination_of(address: Address, *, source: Address | None = None) -> Destination:
    """The destination at an address; it is not contacted yet.

    Args:
        address: ``--send``.
        source: Where studies come from, or None; the same server has the same credentials.

    Raises:
        EnvironmentFaultError: A package of the extra ``clinic`` is not installed.
    """
    if address.scheme == "dicom":
        return StoreDestination(address)
    place = (address.scheme, address.host, address.port)
    same = source is not None and place == (source.scheme, source.host, source.port)
    return WebDestination(address, credentials(send=True, same=same))


class WebDestination:
    """A DICOMweb server, or Orthanc.

    A server that replies to ``/system`` as Orthanc does is one: its plugin ``dicom-web`` is used; what it
    refuses, and everything where the plugin is absent, goes to ``/instances``; and the stored series are
    marked as results.

    Args:
        address: Address of the DICOMweb service, or of Orthanc.
        auth: User and password, or None.
    """

    def __init__(self, address: Address, auth: tuple[str, str] | None) -> None:
        self.name, self._auth, self._address = address.url, auth, address
        self._session = new_session(address, auth)
        self._server: Orthanc | None = None
        self._web: Any = None
        self._known = False

    def send(self, files: Sequence[Path]) -> None:
        """Store objects; see :class:`rsna_seq.service.worker.Destination`."""
        from pydicom import dcmread

        try:
            self._look()
            for file in files:
                made = dcmread(file)
                if not (self._web is not None and self._stow(made)):
                    assert self._server is not None
                    self._server.post("/instances", file.read_bytes())
                if self._server is not None:
                    self._server.mark(str(made.SOPInstanceUID))
        except HttpError as error:
            raise SendError(str(error)) from None

    def _look(self) -> None:
        """Find out once what kind of server it is."""
        if self._known:
            return
        server = Orthanc(self._address, self._auth)
        is_orthanc = _is_orthanc(server)
        plugins: list[str] = []
        if is_orthanc:
            self._server, plugins = server, server.get("/plugins") or []
        if not is_orthanc or "dicom-web" in plugins:
            url = self._address.url + (_PREFIX if is_orthanc else "")
            self._web = _client(url, self._session)
        self._known = True

    def _stow(self, made: Any) -> bool:
        """Store one object by STOW-RS; False if the server refuses it and Orthanc may take it otherwise."""
        import requests

        try:
            reply = self._web.store_instances([made])
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if self._server is not None and 400 <= status < 500:
                return False
            raise HttpError(f"STOW-RS {self.name}: HTTP status {status}", status) from None
        except (requests.RequestException, ValueError) as error:
            raise HttpError(f"STOW-RS {self.name}: {type(error).__name__}") from None
        if reply.get("FailedSOPSequence"):
            if self._server is not None:
                return False
            reason = reply.FailedSOPSequence[0].get("FailureReason", 0)
            raise HttpError(f"STOW-RS {self.name}: refused with reason {int(reason or 0):#06x}")
        return True


class StoreDestination:
    """A DICOM storage server that is sent to by C-STORE.

    Args:
        address: Its address; the title is the called one.

    Raises:
        EnvironmentFaultError: pynetdicom is not installed.
    """

    def __init__(self, address: Address) -> None:
        must_have_pynetdicom()
        self.name, self._address = address.url, address

    def send(self, files: Sequence[Path]) -> None:
        """Store objects; see :class:`rsna_seq.service.worker.Destination`."""
        from pydicom import dcmread
        from pynetdicom import AE

        objects = [dcmread(file) for file in files]
        entity = AE(ae_title="RSNA_SEQ")
        entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = _TIMEOUT_S
        for kind in sorted({str(made.SOPClassUID) for made in objects}):
            entity.add_requested_context(kind)
        link = entity.associate(self._address.host, self._address.port, ae_title=self._address.aet)
        if not link.is_established:
            raise SendError(f"{self.name}: no association (not reachable, or it refuses this program)")
        try:
            for made in objects:
                status = link.send_c_store(made)
                if status.get("Status") is None or int(status.Status) & 0xF000 not in {0, 0xB000}:
                    code = int(status.get("Status") or 0)
                    raise SendError(f"{self.name}: C-STORE failed with status {code:#06x}")
        except ValueError as error:
            raise SendError(f"{self.name}: it does not accept this kind of object: {error}") from None
        finally:
            link.release()


def must_have_pynetdicom() -> None:
    """Refuse C-STORE without its package.

    Raises:
        EnvironmentFaultError: pynetdicom is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("pynetdicom") is None:
        raise EnvironmentFaultError(
            "the package pynetdicom is not installed; run: pip install 'rsna-seq[clinic]'"
        )


def _client(url: str, session: Any) -> Any:
    try:
        from dicomweb_client.web import DICOMwebClient
    except ImportError as error:
        raise EnvironmentFaultError(
            "the package dicomweb-client is not installed; run: pip install 'rsna-seq[clinic]'"
        ) from error
    client = DICOMwebClient(url, session=session, timeout=_TIMEOUT_S)
    client.set_http_retry_params(retry=False)  # the queue tries again
    return client


def _is_orthanc(server: Orthanc) -> bool:
    """Whether a server is an Orthanc; one that is not may reply in any way."""
    try:
        found = server.get("/system")
    except HttpError as error:
        if error.status in {0, 401, 403} and "not JSON" not in str(error):
            raise
        return False
    return isinstance(found, dict) and "ApiVersion" in found
