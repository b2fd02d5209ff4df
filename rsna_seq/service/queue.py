"""The queue of studies: one SQLite file, which ``watch`` and ``serve`` share and which survives ``kill -9``.

A study is answered once: its key is the StudyInstanceUID and the digest of its instances. Each change of
state is one transaction, written to the disk before the function returns.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rsna_seq.errors import IntegrityError
from rsna_seq.service.jobs import Job, State
from rsna_seq.service.queue_tables import APPLICATION, COLUMNS, TABLES, VERSION, job_of

QUEUE = "queue.sqlite"
"""Name of the file."""
Arrived = tuple[str, str, str]
"""Source, key in that source, and StudyInstanceUID of a study."""
Mark = tuple[str, str, str]
"""Source, key and value of what a source notes; see :meth:`Queue.mark`."""


class Queue:
    """The studies of one service; threads and processes may share it.

    Args:
        file: The SQLite file; it is made if it does not exist.

    Raises:
        IntegrityError: The file is damaged, or is not a queue of this version.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.RLock()
        try:
            self._base = sqlite3.connect(file, timeout=60, isolation_level=None, check_same_thread=False)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            with self._writing() as base:  # as a whole: a process that is killed here leaves an empty file
                self._must_be_ours()
                for table in TABLES:
                    base.execute(table)
        except sqlite3.DatabaseError as error:
            raise IntegrityError(
                f"{file}: not a queue of this version, or damaged ({error}); move it away, or choose another "
                "--out"
            ) from error

    def _must_be_ours(self) -> None:
        kind = self._base.execute("PRAGMA application_id").fetchone()[0]
        version = self._base.execute("PRAGMA user_version").fetchone()[0]
        if (kind, version) == (0, 0) and not self._base.execute("SELECT 1 FROM sqlite_master").fetchone():
            self._base.execute(f"PRAGMA application_id = {APPLICATION}")
            self._base.execute(f"PRAGMA user_version = {VERSION}")
        elif (kind, version) != (APPLICATION, VERSION):
            raise sqlite3.DatabaseError(f"application {kind:#x}, version {version}")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._base.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        with self._lock:
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield self._base
            except BaseException:
                self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")

    def arriving(self, source: str, key: str, study: str) -> int:
        """Register a study whose instances arrive; the number of it, also if it is registered already.

        Args:
            source: Name of the source.
            key: Name of the study in its source.
            study: StudyInstanceUID.
        """
        with self._writing() as base:
            return _arriving(base, (source, key, study))

    def forget(self, source: str, key: str) -> None:
        """Remove a study of which instances have arrived, but which is not complete."""
        with self._writing() as base:
            where = "source = ? AND key = ? AND state = 'received'"
            base.execute(f"DELETE FROM studies WHERE {where}", (source, key))

    def forget_arriving(self, source: str) -> None:
        """Remove all studies of a source that are not complete; the source finds them again."""
        with self._writing() as base:
            base.execute("DELETE FROM studies WHERE source = ? AND state = 'received'", (source,))

    def complete(
        self,
        arrived: Arrived,
        digest: str,
        files: Sequence[Path],
        *,
        folder: Path | None = None,
        mark: Mark | None = None,
    ) -> tuple[int, bool]:
        """A study is complete: it waits to be scored, unless the same instances were answered.

        If the same instances have failed, they are scored again.

        Args:
            arrived: Source, key and StudyInstanceUID, as in :meth:`arriving`.
            digest: Digest of its instances.
            files: Its files, or one folder.
            folder: A folder that belongs to this study and is deleted after the answer, or None.
            mark: A mark that is set at the same time, or None.

        Returns:
            The number under which the study is kept, and whether it will be scored now.
        """
        values = (json.dumps(list(map(str, files))), str(folder) if folder else None, time.time())
        with self._writing() as base:
            if mark is not None:
                base.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?)", mark)
            job, ask = (
                _arriving(base, arrived),
                "SELECT id, state FROM studies WHERE study = ? AND digest = ?",
            )
            known = base.execute(ask, (arrived[2], digest)).fetchone()
            if known is not None:
                base.execute("DELETE FROM studies WHERE id = ?", (job,))
                job = int(known[0])
                if known[1] != State.FAILED:
                    return job, False
            base.execute(
                "UPDATE studies SET state = 'stable', files = ?, folder = ?, stable = ?, digest = ?, "
                "tries = 0, sends = 0, due = 0, reason = NULL WHERE id = ?",
                (*values, digest, job),
            )
        return job, True

    def claim(self) -> Job | None:
        """Take the next study that waits to be scored; its try is counted before it begins."""
        with self._writing() as base:
            row = base.execute(
                "UPDATE studies SET state = 'scoring', tries = tries + 1 WHERE id = (SELECT id FROM studies "
                f"WHERE state = 'stable' AND due <= ? ORDER BY due, id LIMIT 1) RETURNING {COLUMNS}",
                (time.time(),),
            ).fetchone()
        return job_of(row) if row else None

    def recover(self, tries: int) -> list[Job]:
        """Take back studies whose process has ended while it scored them.

        Only the process that scores may call this, before it does.

        Args:
            tries: Number of tries after which a study has failed.

        Returns:
            The studies that have failed by it.
        """
        why = "'the process ended ' || tries || ' times while this study was scored'"
        with self._writing() as base:
            rows = base.execute(
                f"UPDATE studies SET state = 'failed', reason = {why} "
                f"WHERE state = 'scoring' AND tries >= ? RETURNING {COLUMNS}",
                (tries,),
            ).fetchall()
            base.execute("UPDATE studies SET state = 'stable' WHERE state = 'scoring'")
        return [job_of(row) for row in rows]

    def answered(self, job: int, answer: Path, *, to_send: bool) -> None:
        """The results of a study are written.

        Args:
            job: Number of the study.
            answer: Folder of the results, relative to the service's folder.
            to_send: They are to be sent.
        """
        self._set(
            job,
            "state = 'answered', answer = ?, to_send = ?, answered = ?, due = 0, reason = NULL",
            (str(answer), to_send, time.time()),
        )

    def sent(self, job: int) -> None:
        """The results of a study are stored at the destination."""
        self._set(job, "state = 'sent', sent = ?, reason = NULL", (time.time(),))

    def failed(self, job: int, reason: str) -> None:
        """A study has no results, or they could not be sent."""
        self._set(job, "state = 'failed', reason = ?", (reason,))

    def again(self, job: int, state: State, reason: str, wait_s: float) -> None:
        """A try has failed by a fault that may pass; the study is tried again later.

        Args:
            job: Number of the study.
            state: ``STABLE`` to score, ``ANSWERED`` to send.
            reason: What happened.
            wait_s: Seconds before the next try.
        """
        more = ", sends = sends + 1" if state == State.ANSWERED else ""
        self._set(job, f"state = ?, reason = ?, due = ?{more}", (state, reason, time.time() + wait_s))

    def _set(self, job: int, change: str, values: tuple[object, ...]) -> None:
        with self._writing() as base:
            base.execute(f"UPDATE studies SET {change} WHERE id = ?", (*values, job))

    def next_to_send(self) -> Job | None:
        """The next study whose results are to be sent now."""
        where = "WHERE state = 'answered' AND to_send AND due <= ? ORDER BY due LIMIT 1"
        found = self._rows(where, time.time())
        return found[0] if found else None

    def job(self, number: int) -> Job | None:
        """A study by its number."""
        found = self._rows("WHERE id = ?", number) if abs(number) < 2**63 else []
        return found[0] if found else None

    def jobs(self, limit: int) -> list[Job]:
        """The studies that were received last, the latest first."""
        return self._rows("ORDER BY id DESC LIMIT ?", limit)

    def uses(self, folder: Path) -> bool:
        """Whether a study that is not yet answered has files in a folder."""
        inside = json.dumps(f"{folder}/")[1:-1]
        return bool(self._rows("WHERE state IN ('stable', 'scoring') AND instr(files, ?)", inside))

    def folders(self) -> set[Path]:
        """The folders that belong to studies."""
        with self._lock:
            found = self._base.execute("SELECT folder FROM studies WHERE folder IS NOT NULL").fetchall()
        return {Path(row[0]) for row in found}

    def counts(self) -> dict[str, int]:
        """Number of studies in each state."""
        with self._lock:
            found = dict(self._base.execute("SELECT state, count(*) FROM studies GROUP BY state").fetchall())
        return {state.value: found.get(state.value, 0) for state in State}

    def waiting(self) -> int:
        """Number of studies that are complete, and not yet answered or failed."""
        counts = self.counts()
        return counts[State.STABLE] + counts[State.SCORING]

    def unsent(self) -> int:
        """Number of studies whose results are to be sent."""
        with self._lock:
            ask = "SELECT count(*) FROM studies WHERE state = 'answered' AND to_send"
            return int(self._base.execute(ask).fetchone()[0])

    def mark(self, source: str, key: str) -> str | None:
        """What a source has noted under a key, or None."""
        with self._lock:
            ask = "SELECT value FROM marks WHERE source = ? AND key = ?"
            found = self._base.execute(ask, (source, key)).fetchone()
        return str(found[0]) if found else None

    def set_mark(self, source: str, key: str, value: str) -> None:
        """Note something under a key of a source."""
        with self._writing() as base:
            base.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?)", (source, key, value))

    def _rows(self, where: str, value: object) -> list[Job]:
        with self._lock:
            found = self._base.execute(f"SELECT {COLUMNS} FROM studies {where}", (value,)).fetchall()
        return [job_of(row) for row in found]


def _arriving(base: sqlite3.Connection, arrived: Arrived) -> int:
    """The number of a study that is registered as arriving, now or before."""
    source, key, study = arrived
    where = "source = ? AND key = ? AND state = 'received'"
    found = base.execute(f"SELECT id FROM studies WHERE {where}", (source, key)).fetchone()
    if found:
        return int(found[0])
    made = base.execute(
        "INSERT INTO studies(source, key, study, state, received) VALUES (?, ?, ?, 'received', ?)",
        (source, key, study, time.time()),
    )
    return int(made.lastrowid or 0)
