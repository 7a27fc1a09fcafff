"""``jobs.sqlite``: a list of all jobs that need not open every folder. Derived; delete it and it is made again."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator, Iterator

from pydantic import BaseModel

from mcp_server import settings
from mcp_server.errors import JobError, brief
from mcp_server.jobs import service, store
from mcp_server.jobs.service import JobView

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job_id TEXT PRIMARY KEY,
    created REAL NOT NULL,
    finished INTEGER NOT NULL,
    view TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_by_age ON jobs (created DESC);
"""


_MOST_WHY = 160  # characters


class JobList(BaseModel):
    """The newest jobs, newest first."""

    jobs: list[JobView]
    showing: str


def newest(limit: int) -> JobList:
    """The newest ``limit`` jobs with their true states.

    Only jobs that had not ended when last looked at are looked at again; that is also the reconciliation at start. ``lost``
    is a conclusion and no record of an end: should the job have lived after all, the next look finds it.
    """
    try:
        with _open() as database:
            _refresh(database)
            total = database.execute("SELECT count(*) FROM jobs").fetchone()[0]
            rows = database.execute("SELECT view FROM jobs ORDER BY created DESC LIMIT ?", (limit,)).fetchall()
            return _shown([JobView.model_validate_json(view) for (view,) in rows], total)
    except (sqlite3.Error, ValueError):
        # Damaged, of another version, or on a disk that can't be written: the folders are the truth.
        _discard()
        views = sorted(_views(), key=lambda view: view.created, reverse=True)
        return _shown(views[:limit], len(views))


def _shown(views: list[JobView], total: int) -> JobList:
    """The list with each reason in brief; the whole one is in the job's log."""
    short = [view.model_copy(update={"why": brief(view.why, _MOST_WHY)}) if view.why else view for view in views]
    return JobList(jobs=short, showing=f"{len(short)} of {total} jobs")


@contextlib.contextmanager
def _open() -> Generator[sqlite3.Connection]:
    path = settings.home() / "jobs.sqlite"
    if not path.parent.is_dir():
        raise sqlite3.OperationalError("no state folder yet")
    database = sqlite3.connect(path, timeout=10)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(_SCHEMA)
        yield database
        database.commit()
    finally:
        database.close()


def _discard() -> None:
    for name in ("jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"):
        with contextlib.suppress(OSError):
            (settings.home() / name).unlink()


def _refresh(database: sqlite3.Connection) -> None:
    known = dict(database.execute("SELECT job_id, finished FROM jobs"))
    present: set[str] = set()
    for folder in store.all_folders():
        present.add(folder.job_id)
        if known.get(folder.job_id):
            continue
        try:
            view = service.view(folder)
        except JobError:
            continue  # no readable spec: nothing to list
        database.execute(
            "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?)",
            (
                view.job_id,
                view.created,
                view.status in store.TERMINAL and view.status != "lost",
                view.model_dump_json(),
            ),
        )
    for job_id in known.keys() - present:
        database.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))


def _views() -> Iterator[JobView]:
    for folder in store.all_folders():
        with contextlib.suppress(JobError):
            yield service.view(folder)
