"""An Orthanc server for tests, in a network namespace in which nothing but this machine exists.

Debian's Orthanc 1.10.1 listens on every address, whatever its config says. In a namespace of its own there is
only the loopback device. The process that runs the tests enters it, and leaves it afterwards.
"""

import ctypes
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import requests

_NEW_NETWORK = 0x40000000
"""CLONE_NEWNET."""
_SET_FLAGS, _UP = 0x8914, 0x1
"""SIOCSIFFLAGS, IFF_UP."""
PLUGINS = Path("/usr/share/orthanc/plugins")


@contextmanager
def own_network() -> Iterator[None]:
    """Run a block in a network with nothing but loopback; skip the test where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open(f"/proc/self/task/{_thread()}/ns/net", os.O_RDONLY)
    if libc.unshare(_NEW_NETWORK) != 0:
        os.close(before)
        pytest.skip(f"no network namespace can be made: {os.strerror(ctypes.get_errno())}")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))
        yield
    finally:
        assert libc.setns(before, _NEW_NETWORK) == 0
        os.close(before)


def _thread() -> int:
    import threading

    return threading.get_native_id()


class OrthancServer:
    """An Orthanc server on loopback, with a password and a temporary folder."""

    user, password, port, dicom_port, title = "tests", "a password of tests", 8042, 4242, "ORTHANC"

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, f"http://127.0.0.1:{self.port}"
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.auth = (self.user, self.password)

    def __enter__(self) -> Self:
        program = shutil.which("Orthanc")
        if program is None or not PLUGINS.is_dir():
            pytest.skip("Orthanc is not installed (Debian packages orthanc, orthanc-dicomweb, orthanc-gdcm)")
        config = self.folder / "orthanc.json"
        config.write_text(json.dumps(self._config()), encoding="utf-8")
        self.log = (self.folder / "log.txt").open("wb")
        self.process = subprocess.Popen([program, config], stdout=self.log, stderr=self.log)
        end = time.monotonic() + 30
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.session.get(f"{self.url}/system", timeout=5).raise_for_status()
            except requests.RequestException:
                time.sleep(0.1)
            else:
                return self
        self.__exit__()
        pytest.fail((self.folder / "log.txt").read_text(encoding="utf-8")[-3000:])

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.session.close()
        self.log.close()

    def _config(self) -> dict[str, Any]:
        return {
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "HttpPort": self.port,
            "DicomPort": self.dicom_port,
            "DicomAet": self.title,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {self.user: self.password},
            "StableAge": 1,
            "Plugins": [str(PLUGINS / f"libOrthanc{name}.so") for name in ("DicomWeb", "Gdcm")],
            "DicomWeb": {"Enable": True},
        }

    def get(self, path: str) -> Any:
        """JSON of a resource."""
        reply = self.session.get(self.url + path, timeout=30)
        reply.raise_for_status()
        return reply.json()

    def store(self, folder: Path) -> None:
        """Store the files of a folder by REST, as they are."""
        for file in sorted(folder.glob("*.dcm")):
            self.session.post(f"{self.url}/instances", file.read_bytes(), timeout=30).raise_for_status()

    def series(self, study: str) -> dict[str, list[str]]:
        """Orthanc's ids of the instances of a study, by modality."""
        found: dict[str, list[str]] = {}
        for name in self._lookup(study, "Study"):
            for series in self.get(f"/studies/{name}/series"):
                found.setdefault(series["MainDicomTags"]["Modality"], []).extend(series["Instances"])
        return found

    def file(self, instance: str) -> bytes:
        """The bytes of an instance."""
        reply = self.session.get(f"{self.url}/instances/{instance}/file", timeout=30)
        reply.raise_for_status()
        return reply.content

    def empty(self) -> None:
        """Delete all studies."""
        for study in self.get("/studies"):
            self.session.delete(f"{self.url}/studies/{study}", timeout=30).raise_for_status()

    def _lookup(self, uid: str, kind: str) -> list[str]:
        reply = self.session.post(f"{self.url}/tools/lookup", uid, timeout=30)
        return [each["ID"] for each in reply.json() if each["Type"] == kind]
