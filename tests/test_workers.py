"""Several worker processes on one address."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from os import kill
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGSTOP, SIGTERM, Signals

import httpx
import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from runstate.database import Database
from runstate.workers import GRACE_SECONDS
from tests.serving import DidNotStartError, Serve, Server

PATIENCE_SECONDS = 60
LISTENERS = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'")
QUERY = {"query": "{ flows { totalCount } }"}


@pytest.fixture
def kind() -> str:
    return "postgresql"


def children(server: Server) -> set[int]:
    """Return the process ids of a server's workers."""
    known = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in known}
    return {pid for pid, command in commands.items() if b"spawn_main" in command}


@asynccontextmanager
async def fresh() -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client that reconnects for every request, so that any worker may answer."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS, limits=limits) as client:
        yield client


async def operations(client: httpx.AsyncClient, url: str) -> float:
    """Return the number of queries that all workers have answered, as one of them reports it."""
    reply = await client.get(url.replace("/graphql", "/metrics"))
    return sum(
        sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
        if sample.name == "graphql_operations_total"
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 there is no event to await
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("signal", [SIGTERM, SIGINT])
async def test_workers_answer_on_one_address_and_stop_together(serve: Serve, signal: Signals) -> None:
    server = await serve(RUNSTATE_WORKERS="2")
    async with fresh() as client:
        for _ in range(20):
            assert (await client.post(server.url, json=QUERY)).json()["data"] == {"flows": {"totalCount": 0}}
        workers = children(server)

    assert len(workers) == 2
    assert await server.stop(signal) == 0
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []
    said = (await server.output).decode()
    assert said.count("Traceback") == 0


async def test_a_killed_worker_is_replaced(serve: Serve) -> None:
    server = await serve(RUNSTATE_WORKERS="2")
    async with fresh() as client:
        await client.post(server.url, json=QUERY)
        killed, other = sorted(children(server))
        kill(killed, SIGKILL)
        await until(lambda: len(children(server)) == 2 and killed not in children(server))

        assert other in children(server)
        assert (await client.post(server.url, json=QUERY)).status_code == 200
    assert await server.stop() == 0


async def both_serve(url: str) -> None:
    """Wait until two workers listen for notifications: by then they have sent heartbeats."""
    database = Database(url)
    async with database.read() as connection, asyncio.timeout(PATIENCE_SECONDS):
        while await connection.scalar(LISTENERS) < 2:  # noqa: ASYNC110 nothing tells
            await asyncio.sleep(0.05)
    await database.close()


async def test_a_worker_that_hangs_is_replaced(serve: Serve, url: str) -> None:
    server = await serve(RUNSTATE_WORKERS="2", RUNSTATE_WORKER_TIMEOUT_SECONDS="5")
    await both_serve(url)
    async with fresh() as client:
        await client.post(server.url, json=QUERY)
        hung, other = sorted(children(server))
        kill(hung, SIGSTOP)
        await until(lambda: len(children(server)) == 2 and hung not in children(server))

        assert other in children(server)
        assert (await client.post(server.url, json=QUERY)).status_code == 200
    assert await server.stop() == 0
    assert "worker_hung" in (await server.output).decode()


async def test_workers_end_within_their_grace_period_although_one_hangs(serve: Serve) -> None:
    server = await serve(RUNSTATE_WORKERS="2", RUNSTATE_WORKER_TIMEOUT_SECONDS="3600")
    async with fresh() as client:
        await client.post(server.url, json=QUERY)
    workers = children(server)
    kill(min(workers), SIGSTOP)

    async with asyncio.timeout(GRACE_SECONDS + 10):
        assert await server.stop() == 0
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []
    assert "worker_killed" in (await server.output).decode()


async def test_each_worker_exports_the_metrics_of_all(serve: Serve) -> None:
    server = await serve(RUNSTATE_WORKERS="2")
    async with fresh() as client:
        for _ in range(30):
            await client.post(server.url, json=QUERY)
        told = {await operations(client, server.url) for _ in range(10)}
        kill(children(server).pop(), SIGKILL)
        after = {await operations(client, server.url) for _ in range(10)}

    assert told == after == {30}


async def test_workers_end_with_their_parent_process(serve: Serve) -> None:
    server = await serve(RUNSTATE_WORKERS="2")
    async with fresh() as client:
        await client.post(server.url, json=QUERY)
    workers = children(server)

    server.process.send_signal(SIGKILL)

    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


async def test_a_sqlite_file_has_one_process(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(DidNotStartError, match=re.escape("use PostgreSQL for several workers")):
        await serve(RUNSTATE_WORKERS="2", RUNSTATE_DATABASE_URL=f"sqlite+aiosqlite:///{tmp_path / 'r.db'}")


async def test_invalid_settings_are_reported_once(serve: Serve) -> None:
    with pytest.raises(DidNotStartError, match="Unknown service `latte`") as failed:
        await serve(RUNSTATE_WORKERS="2", RUNSTATE_SERVICES="latte")

    assert len(str(failed.value).splitlines()) == 1


async def test_two_servers_with_workers_do_not_share_a_port(serve: Serve) -> None:
    server = await serve(RUNSTATE_WORKERS="2")
    port = str(httpx.URL(server.url).port)

    with pytest.raises(DidNotStartError, match=f"Cannot listen on 127.0.0.1, port {port}"):
        await serve(RUNSTATE_WORKERS="2", RUNSTATE_PORT=port)
