"""PgBouncer in front of a database, configured like those of hosting providers."""

import asyncio
import os
import pwd
import re
import shutil
import socket
import subprocess
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import sqlalchemy as sa

from tests.node import lacking

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
PATIENCE_SECONDS = 30
CONFIGURATION = """[databases]
{name} = {place}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
unix_socket_dir =
{more}
"""
IGNORING = "ignore_startup_parameters = extra_float_digits,statement_timeout,idle_in_transaction_session_timeout,jit"
PREPARING = "max_prepared_statements = 100"


def prepares_statements() -> bool:
    """Return whether this PgBouncer supports prepared statements (1.21 or later)."""
    if PROGRAM is None:
        lacking("pgbouncer is not installed here.")
    printed = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    found = re.search(r"(\d+)\.(\d+)", printed)
    return found is not None and (int(found[1]), int(found[2])) >= (1, 21)


@asynccontextmanager
async def pooled(url: str, directory: Path, more: str = "") -> AsyncIterator[str]:
    """Yield the URL of a database through a PgBouncer in transaction mode; skip the test if there is no PgBouncer."""
    if PROGRAM is None:
        lacking("pgbouncer is not installed here.")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = directory / "pgbouncer.ini"
    made = sa.make_url(url)
    file.write_text(CONFIGURATION.format(name=made.database, place=_place(made), port=port, more=more))
    process = await asyncio.create_subprocess_exec(PROGRAM, *_user(made), str(file), stdout=DEVNULL, stderr=PIPE)
    try:
        await _listening(process, port)
        yield f"postgresql://{made.username}@127.0.0.1:{port}/{made.database}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def _place(url: sa.URL) -> str:
    parts = {"host": url.host, "port": url.port, "user": url.username, "password": url.password, "dbname": url.database}
    return " ".join(f"{name}={value}" for name, value in {**parts, **url.query}.items() if value)


def _user(url: sa.URL) -> list[str]:
    """Return the arguments that run PgBouncer as the user of PostgreSQL's socket: it refuses to run as root."""
    if os.geteuid():
        return []
    place = url.query.get("host")
    owner = pwd.getpwuid(Path(place).stat().st_uid).pw_name if isinstance(place, str) else "nobody"
    return ["-u", owner]


async def _listening(process: asyncio.subprocess.Process, port: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return
    assert process.stderr
    raise AssertionError((await process.stderr.read()).decode())
