"""The tables of the queue's SQLite file."""

import json
from pathlib import Path

from rsna_seq.service.jobs import Job, State

APPLICATION, VERSION = 0x52534E41, 1
"""Mark of a SQLite file of this kind, and the version of its tables."""
TABLES = (
    """CREATE TABLE IF NOT EXISTS studies(
    id INTEGER PRIMARY KEY AUTOINCREMENT, study TEXT NOT NULL, source TEXT NOT NULL, key TEXT NOT NULL,
    digest TEXT, files TEXT NOT NULL DEFAULT '[]', folder TEXT, state TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, sends INTEGER NOT NULL DEFAULT 0, reason TEXT, answer TEXT,
    to_send INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0,
    received REAL NOT NULL, stable REAL, answered REAL, sent REAL)""",
    "CREATE UNIQUE INDEX IF NOT EXISTS one_answer ON studies(study, digest) WHERE digest IS NOT NULL",
    "CREATE UNIQUE INDEX IF NOT EXISTS arriving ON studies(source, key) WHERE state = 'received'",
    "CREATE INDEX IF NOT EXISTS by_state ON studies(state)",
    """CREATE TABLE IF NOT EXISTS marks(
    source TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY(source, key))""",
)
COLUMNS = (
    "id, study, source, key, digest, files, folder, state, tries, sends, reason, answer, to_send, due, "
    "received, stable, answered, sent"
)
"""Columns of ``studies``: the attributes of :class:`rsna_seq.service.jobs.Job`."""


def job_of(row: tuple[object, ...]) -> Job:
    """A row of ``studies`` as a job.

    Args:
        row: The values of COLUMNS.
    """
    values = dict(zip(COLUMNS.split(", "), row, strict=True))
    files, folder, answer = (values[name] for name in ("files", "folder", "answer"))
    values |= {"files": tuple(map(Path, json.loads(str(files)))), "state": State(str(values["state"]))}
    values |= {"folder": folder and Path(str(folder)), "answer": answer and Path(str(answer))}
    return Job(**{**values, "to_send": bool(values["to_send"])})  # type: ignore[arg-type]
