"""Studies that arrive by C-STORE: one is complete when nothing more came for ``service.stable_s``.

Instances are kept in one folder per study. The sender is told of success only when the file is on the disk.
The folder is deleted ``service.late_s`` after the last instance, so that late slices are scored with the
earlier ones. A restart finds the folders again.
"""

import hashlib
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from pydicom.config import disable_value_validation

from rsna_seq.config import ServiceConfig
from rsna_seq.console import say
from rsna_seq.errors import EnvironmentFaultError, UsageError
from rsna_seq.imaging.headers.frame import CT_CLASSES
from rsna_seq.service.addresses import Address, is_loopback
from rsna_seq.service.jobs import digest_of, signature_of
from rsna_seq.service.queue import Queue
from rsna_seq.service.send import must_have_pynetdicom
from rsna_seq.service.source import Inbox, must_have_room
from rsna_seq.store.files import write_bytes

_SUCCESS, _OUT_OF_RESOURCES, _CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
"""Status of C-STORE (PS3.4 B.2.3)."""
_STORED = "stored"
_NAME = "study.txt"
"""File in the folder of a study that names it."""
_ECHO = "1.2.840.10008.1.1"
"""Verification (C-ECHO)."""


class StoreSource:
    """A DICOM storage server on this machine.

    Args:
        address: Where it listens, and its application entity title.
        queue: Receives the studies.
        inbox: Below its folder the instances are kept.
        cfg: Times and limits.

    Raises:
        UsageError: The port is taken, or needs other rights.
        EnvironmentFaultError: pynetdicom is not installed.
    """

    def __init__(self, address: Address, queue: Queue, inbox: Inbox, cfg: ServiceConfig) -> None:
        must_have_pynetdicom()
        self.queue, self.cfg, self.folder = queue, cfg, inbox.folder / _STORED
        self.name = "c-store"
        self._lock = threading.Lock()
        self._changed: dict[Path, float] = {}
        queue.forget_arriving(self.name)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for entry in self.folder.iterdir():
            if (entry / _NAME).is_file():
                self._changed[entry] = time.monotonic()
        self._server = self._listen(address)
        self.port: int = self._server.socket.getsockname()[1]
        say("watch", f"listening for C-STORE at {address.host}:{self.port} as {address.aet}")
        if not is_loopback(address.host):
            say("watch", f"{address.host} is reachable from other machines, and DICOM has no password")

    def poll(self) -> bool:
        """Look once; see :class:`rsna_seq.service.source.Source`."""
        now = time.monotonic()
        with self._lock:
            known = dict(self._changed)
        arriving = False
        for folder, changed in known.items():
            study = (folder / _NAME).read_text(encoding="utf-8")
            files = _instances(folder)
            signature = signature_of((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files)
            if self.queue.mark(self.name, study) == signature:
                self._expire(folder, now)
            elif now - changed < self.cfg.stable_s:
                self.queue.arriving(self.name, study, study)
                arriving = True
            else:
                mark = (self.name, study, signature)
                self.queue.complete((self.name, study, study), digest_of(files), files, mark=mark)
        return arriving

    def close(self) -> None:
        """Stop listening; associations in progress are ended."""
        self._server.shutdown()

    def _expire(self, folder: Path, now: float) -> None:
        """Delete instances that were scored long ago."""
        if self.queue.uses(folder):
            return
        with self._lock:
            if now - self._changed[folder] < self.cfg.late_s:
                return
            del self._changed[folder]
            if self.cfg.keep_received:
                (folder / _NAME).unlink()
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def _listen(self, address: Address) -> Any:
        from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt

        entity = AE(ae_title=address.aet)
        entity.require_called_aet = True
        entity.maximum_associations = self.cfg.max_uploads
        for kind in sorted(CT_CLASSES):
            entity.add_supported_context(kind, ALL_TRANSFER_SYNTAXES)
        entity.add_supported_context(_ECHO)
        try:
            return entity.start_server(
                (address.host, address.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._stored)]
            )
        except OSError as error:
            what = f"{address.host}:{address.port}"
            raise UsageError(f"cannot listen at {what}: {error.strerror}; choose another port") from error

    def _stored(self, event: Any) -> int:
        """One instance arrived: the status of the reply."""
        try:
            if self.queue.waiting() >= self.cfg.max_waiting:
                return _OUT_OF_RESOURCES
            must_have_room(self.folder)
            return self._keep(event)
        except (EnvironmentFaultError, OSError) as error:
            say("watch", f"an instance was refused: {error}")
            return _OUT_OF_RESOURCES
        except Exception as error:  # a damaged data set may raise any exception
            say("watch", f"an instance was refused: {type(error).__name__}")
            return _CANNOT_UNDERSTAND

    def _keep(self, event: Any) -> int:
        """Write one instance, and wait until it is on the disk."""
        with disable_value_validation():
            header = event.dataset
            study, instance = str(header.StudyInstanceUID), str(header.SOPInstanceUID)
        folder = self.folder / hashlib.sha256(study.encode()).hexdigest()[:32]
        name = f"{hashlib.sha256(instance.encode()).hexdigest()[:32]}.dcm"
        with self._lock:  # one after another: this also bounds the memory
            folder.mkdir(exist_ok=True, mode=0o700)
            held = self._size(folder)
            if held[0] >= self.cfg.max_files or held[1] > self.cfg.max_upload_mb * 1_000_000:
                return _OUT_OF_RESOURCES
            data = event.encoded_dataset()
            path = folder / name
            if not path.is_file() or path.read_bytes() != data:
                write_bytes(path, data)
            if not (folder / _NAME).is_file():
                write_bytes(folder / _NAME, study.encode())
            self._changed[folder] = time.monotonic()
        return _SUCCESS

    def _size(self, folder: Path) -> tuple[int, int]:
        """Number of instances of a study, and their bytes."""
        sizes = [entry.stat().st_size for entry in os.scandir(folder) if entry.name.endswith(".dcm")]
        return len(sizes), sum(sizes)


def _instances(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.dcm"))
