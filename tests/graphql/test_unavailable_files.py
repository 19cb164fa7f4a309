"""A file of SQLite that cannot be written for a while, or that was deleted or replaced while the server runs."""

import asyncio
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa
from starlette.applications import Starlette
from structlog.testing import capture_logs

from runstate.database import Database
from tests.client import Ask
from tests.databases import sqlite_url
from tests.graphql.mutations import PROBLEM, make_flow, make_flow_run, propose
from tests.serving import Serve, Server
from tests.unavailable import CREATE, PROPOSE, check_logs, codes, ready, refused, until_not_ready, until_ready

IMMEDIATE_SECONDS = 5


@pytest.fixture
def kind() -> str:
    """SQLite."""
    return "sqlite"


@pytest.fixture
def file(url: str) -> Path:
    """The file of the database."""
    return Path(str(sa.make_url(url).database))


async def pragma(app: Starlette, setting: str) -> Any:
    """Set something on the connection that writes."""
    database: Database = app.state.database
    async with database.write() as transaction:
        result = await transaction.connection.execute(sa.text(f"PRAGMA {setting}"))
        return result.scalar() if result.returns_rows else None


async def test_a_file_that_another_program_has_locked_is_unavailable(file: Path, app: Starlette, ask: Ask) -> None:
    run = await make_flow_run(ask)
    await pragma(app, "busy_timeout = 100")
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await refused(ask, run, "Another program has locked the database")
        await until_not_ready(ask, "writes", "locked")
    assert (await propose(ask, run, "RUNNING"))["status"] == "ACCEPT"
    await until_ready(ask)


async def test_a_file_that_cannot_grow_is_said_to_be_full(app: Starlette, ask: Ask) -> None:
    run = await make_flow_run(ask)
    await pragma(app, f"max_page_count = {await pragma(app, 'page_count')}")
    document = f"mutation($input: CreateFlowInput!) {{ createFlow(input: $input) {{ {PROBLEM} }} }}"
    with capture_logs() as logs:
        async with asyncio.timeout(30):
            while not codes(
                answer := await ask.raw(document, input={"name": str(uuid4()), "labels": {"a": "x" * 500}})
            ):
                pass
        states = [await ask.raw(PROPOSE, run=run) for _ in range(100)]
    full = [error for each in (answer, *states) for error in each.get("errors") or ()]
    assert {error["extensions"]["code"] for error in full} == {"UNAVAILABLE"}
    assert {error["message"] for error in full} == {"The disk of the database is full; nothing was written."}
    assert len(full) > 1
    check_logs(logs)
    assert "full" in (await ready(ask))["writes"]

    await pragma(app, "max_page_count = 1000000")
    assert codes(await ask.raw(document, input={"name": "last"})) == []
    await until_ready(ask)


async def test_a_connection_that_may_only_read_is_closed_so_that_the_next_one_may_write(
    app: Starlette, ask: Ask
) -> None:
    await make_flow(ask)
    await pragma(app, "query_only = ON")
    answer = await ask.raw(CREATE, name="one")

    assert [error["message"] for error in answer["errors"]] == ["The database file is read-only; nothing was written."]
    assert codes(answer) == ["UNAVAILABLE"]
    assert codes(await ask.raw(CREATE, name="two")) == []


async def test_a_file_that_the_system_does_not_let_grow_is_unavailable_and_named_in_a_line(
    file: Path, serve: Serve
) -> None:
    server = await serve()
    process, size = server.process.pid, resource.RLIMIT_FSIZE
    limits = resource.prlimit(process, size)
    log = Path(f"{file}-wal")

    @contextmanager
    def limited() -> Iterator[None]:
        resource.prlimit(process, size, (log.stat().st_size, limits[1]))
        yield
        resource.prlimit(process, size, limits)

    await spoiled(server, limited)


async def test_a_file_that_is_immutable_is_unavailable_and_named_in_a_line(file: Path, serve: Serve) -> None:
    @contextmanager
    def immutable() -> Iterator[None]:
        files = [str(file), f"{file}-wal"]
        if subprocess.run(["chattr", "+i", *files], check=False).returncode:  # noqa: S603, S607
            pytest.skip("This user may not make files immutable here.")
        yield
        subprocess.run(["chattr", "-i", *files], check=True)  # noqa: S603, S607

    await spoiled(await serve(), immutable)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False).returncode:  # noqa: S603
        pytest.skip("This user may not mount file systems here.")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)  # noqa: S603, S607


async def test_a_disk_that_is_full_is_named(file: Path, disk: Path, serve: Serve) -> None:
    moved, filler = shutil.copy(file, disk / "runstate.db"), disk / "filler"

    @contextmanager
    def full() -> Iterator[None]:
        with suppress(OSError), filler.open("wb", 0) as written:
            while True:
                written.write(bytes(4096))
        yield
        filler.unlink()

    server = await serve(RUNSTATE_DATABASE_URL=sqlite_url(Path(moved)))
    await spoiled(server, full, "The disk of the database is full")


async def spoiled(server: Server, spoil: Callable[[], AbstractContextManager[None]], wrong: str = "database") -> None:
    """A server is unavailable at once while something is wrong with its file, and not longer."""
    async with httpx.AsyncClient(base_url=server.url.removesuffix("/graphql"), timeout=60) as client:
        ask = Ask(client)
        run = await make_flow_run(ask)
        with spoil():
            began = time.monotonic()
            await refused(ask, run, wrong)
            assert time.monotonic() - began < IMMEDIATE_SECONDS
            await until_not_ready(ask, "writes", wrong)

        assert (await propose(ask, run, "RUNNING"))["status"] == "ACCEPT"
        await until_ready(ask)
    await server.stop()
    lines = (await server.output).decode().splitlines()
    assert 1 <= len([line for line in lines if "database_unavailable" in line]) <= 2
    assert "Traceback" not in "".join(lines)


def deleted(file: Path) -> None:
    file.unlink()


def replaced(file: Path) -> None:
    copy = Path(shutil.copy(file, f"{file}.copy"))
    copy.replace(file)


def without_log(file: Path) -> None:
    Path(f"{file}-wal").unlink()


@pytest.mark.parametrize("how", [deleted, replaced, without_log])
async def test_a_file_that_was_deleted_or_replaced_is_not_written(
    file: Path, ask: Ask, how: Callable[[Path], None]
) -> None:
    run = await make_flow_run(ask)
    how(file)
    answers = [await ask.raw(CREATE, name="one"), await ask.raw(PROPOSE, run=run)]

    assert [codes(answer) for answer in answers] == [["UNAVAILABLE"]] * 2
    assert {error["message"] for answer in answers for error in answer["errors"]} == {
        "The database file was deleted or replaced while it was in use; nothing was written. Restart the server."
    }
    await until_not_ready(ask, "writes", "deleted or replaced")


async def test_proposals_under_way_when_the_file_is_deleted_are_not_accepted_afterwards(file: Path, ask: Ask) -> None:
    run = await make_flow_run(ask)
    accepted, gone = 0, False

    async def client() -> None:
        nonlocal accepted
        for _ in range(20):
            is_gone = gone
            answer = await ask.raw(PROPOSE, run=run)
            accepted += is_gone and not codes(answer)

    working = asyncio.gather(*(client() for _ in range(5)))
    await ask.raw(PROPOSE, run=run)
    file.unlink()
    gone = True
    await working

    assert accepted == 0
