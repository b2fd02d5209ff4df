"""Studies of an Orthanc server, found by polling its changes.

1. ``/changes?since=N`` is read from where the last look ended, also after a restart; each ``StableStudy`` is
   one study, to which nothing was added for the server's ``StableAge``.
2. Only CT series count; series that carry the mark of this package's results, and reports, key objects and
   captures, never do. A study whose CT instances have not changed since its answer is skipped.
3. Its instances are retrieved as they are stored (nothing is transcoded) and put into the queue; then the
   number of the change is noted.
"""

import shutil
from pathlib import Path
from typing import Any

from rsna_seq.config import ServiceConfig
from rsna_seq.console import say
from rsna_seq.service.jobs import signature_of
from rsna_seq.service.orthanc import MARK, MARKED, HttpError, Orthanc
from rsna_seq.service.queue import Queue
from rsna_seq.service.source import Inbox, SourceError, TooLargeError, put

_SINCE = "changes since"
_AT_ONCE = 100
_CT = {"CT", ""}
"""Modalities that are retrieved; one that is missing may be CT."""


class OrthancSource:
    """An Orthanc server that is asked for changes.

    Args:
        server: The server.
        queue: Receives the studies.
        inbox: Receives the instances.
        cfg: Limits, and whether studies count that were there before the first start.
        once: Tell whether studies are not yet stable, for which all studies of the server are listed.
    """

    def __init__(
        self, server: Orthanc, queue: Queue, inbox: Inbox, cfg: ServiceConfig, *, once: bool = False
    ) -> None:
        self.server, self.queue, self.inbox, self.cfg, self._once = server, queue, inbox, cfg, once
        self.name = f"orthanc {server.address.url}"
        self._quiet = False
        queue.forget_arriving(self.name)

    def poll(self) -> bool:
        """Read the changes once; see :class:`rsna_seq.service.source.Source`."""
        try:
            return self._poll()
        except HttpError as error:
            raise SourceError(str(error)) from None

    def close(self) -> None:
        """Close the connection."""
        self.server.session.close()

    def _poll(self) -> bool:
        quiet, since = self._once and not self._is_settling(), self._since()
        while True:
            found = self.server.get("/changes", since=since, limit=_AT_ONCE)
            if not isinstance(found, dict) or "Changes" not in found:
                raise HttpError(f"{self.server.address.url}/changes: this is not an Orthanc server")
            for change in found["Changes"]:
                if change["ChangeType"] == "StableStudy":
                    if self.queue.waiting() >= self.cfg.max_waiting:
                        return True
                    self._study(change["ID"])
                since = int(change["Seq"])
                self.queue.set_mark(self.name, _SINCE, str(since))
            if found["Done"] or not found["Changes"]:
                # one look more: a study may be stable some time before its change is listed
                before, self._quiet = self._quiet, quiet
                return self._once and not (before and quiet)

    def _since(self) -> int:
        """The number of the last change that was read; 0 if the server has started its numbers again."""
        noted, last = self.queue.mark(self.name, _SINCE), self._last()
        if noted is None:
            start = 0 if self.cfg.backlog else last
            self.queue.set_mark(self.name, _SINCE, str(start))
            return start
        if int(noted) > last:
            say(
                "watch",
                f"{self.name}: its changes are numbered from 1 again; all its studies are checked again",
            )
            return 0
        return int(noted)

    def _last(self) -> int:
        found = self.server.get("/changes", last="")
        if not isinstance(found, dict) or "Last" not in found:
            raise HttpError(f"{self.server.address.url}/changes: this is not an Orthanc server")
        return int(found["Last"])

    def _is_settling(self) -> bool:
        """Whether a study with CT series is not yet stable."""
        unstable = (s for s in self.server.get("/studies", expand="") or [] if not s.get("IsStable", True))
        return any(self._instances(study["ID"]) for study in unstable)

    def _study(self, name: str) -> None:
        """Put one study into the queue, unless its instances were put there before."""
        instances, study = self._instances(name), self.server.get(f"/studies/{name}")
        if not instances or study is None:
            return
        signature = signature_of((each["ID"], each.get("FileUuid")) for each in instances)
        if self.queue.mark(self.name, name) == signature:
            return
        uid = str(study["MainDicomTags"].get("StudyInstanceUID", "")) or name
        arrived, mark = (self.name, name, uid), (self.name, name, signature)
        self.queue.arriving(*arrived)
        folder = self.inbox.new()
        try:
            files = self._retrieve(instances, folder)
            if files:
                put(self.queue, arrived, self.inbox, folder, files, mark)
            else:  # it was deleted meanwhile
                self.queue.forget(self.name, name)
        except TooLargeError as error:
            kept, _ = self.queue.complete(arrived, signature, [], mark=mark)
            self.queue.failed(kept, str(error))
            say("watch", f"study {uid}: failed: {error}")
            shutil.rmtree(folder, ignore_errors=True)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _instances(self, study: str) -> list[dict[str, Any]]:
        """The instances of the CT series of a study."""
        series = self.server.get(f"/studies/{study}/series") or []
        kept = [each for each in series if self._counts(each)]
        return [i for each in kept for i in self.server.get(f"/series/{each['ID']}/instances") or []]

    def _counts(self, series: dict[str, Any]) -> bool:
        """Whether a series is scored: CT, and not marked as a result."""
        if str(series["MainDicomTags"].get("Modality", "")).strip() not in _CT:
            return False
        return self.server.text(f"/series/{series['ID']}/metadata/{MARK}") != MARKED

    def _retrieve(self, instances: list[dict[str, Any]], folder: Path) -> list[Path]:
        """Write the instances into a folder, with numbers as names."""
        if len(instances) > self.cfg.max_files:
            raise TooLargeError(f"more than {self.cfg.max_files:,} files (service.max_files)")
        left, made = self.cfg.max_upload_mb * 1_000_000, []
        for number, each in enumerate(instances):
            path = folder / f"{number:06d}.dcm"
            size = self.server.download(f"/instances/{each['ID']}/file", path, left)
            if size > left:
                raise TooLargeError(f"more than {self.cfg.max_upload_mb:,} MB (service.max_upload_mb)")
            if size < 0:
                path.unlink()
                continue
            left -= size
            made.append(path)
        return made
