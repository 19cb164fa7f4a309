"""Health checks: whether the server is alive, and whether it is ready."""

import asyncio
from collections.abc import AsyncIterator
from signal import SIGTERM

import httpx
import pytest
import sqlalchemy as sa
from starlette.applications import Starlette

from runstate.app import build_app
from runstate.database.engine import Database
from runstate.health import feed_status
from runstate.settings import Settings
from tests.client import Ask
from tests.serving import Serve
from tests.subscribing import Listening, connected, listening

READY = {"serving": "ok", "database": "ok", "migrations": "ok", "writes": "ok", "feed": "ok"}


@pytest.fixture
def client(ask: Ask) -> httpx.AsyncClient:
    return ask.client


async def written(app: Starlette, statement: str) -> None:
    database: Database = app.state.database
    async with database.write() as transaction:
        await transaction.connection.execute(sa.text(statement))


@pytest.mark.parametrize("path", ["/healthz", "/health"])
async def test_a_live_server_answers_without_executing_statements(
    client: httpx.AsyncClient, app: Starlette, path: str
) -> None:
    before = app.state.database.statements

    reply = await client.get(path)

    assert (reply.status_code, reply.json()) == (200, {"status": "ok"})
    assert app.state.database.statements - before <= 2  # the feed's


async def test_a_ready_server_lists_its_checks(client: httpx.AsyncClient) -> None:
    reply = await client.get("/readyz")

    assert (reply.status_code, reply.json()) == (200, {"status": "ok", "checks": READY})


async def test_a_server_is_not_ready_while_the_database_is_unreachable(url: str) -> None:
    async with listening(url) as server:
        server.starlette.state.health.database = nowhere = Database("postgresql+asyncpg://127.0.0.1:1/nothing")
        reply = await answer(server)
        await nowhere.close()

    assert reply.status_code == 503
    assert reply.json()["status"] == "unavailable"
    assert reply.json()["checks"]["database"].startswith("unreachable")
    assert reply.json()["checks"]["migrations"] == "unknown"


async def test_a_server_is_not_ready_while_migrations_are_missing(client: httpx.AsyncClient, app: Starlette) -> None:
    app.state.health.revisions.insert(0, "0999")

    reply = await client.get("/readyz")

    assert reply.status_code == 503
    assert reply.json()["checks"]["migrations"].endswith("not 0999")


async def test_a_server_is_ready_with_tables_of_a_later_version(client: httpx.AsyncClient, app: Starlette) -> None:
    await written(app, "UPDATE alembic_version SET version_num = '9999'")

    assert (await client.get("/readyz")).status_code == 200


async def test_a_server_is_not_ready_while_its_feed_is_stuck(client: httpx.AsyncClient, app: Starlette) -> None:
    app.state.feed.transitions.task.cancel()
    app.state.feed.transitions.polled_at -= 3600

    reply = await client.get("/readyz")

    assert reply.status_code == 503
    assert reply.json()["checks"]["feed"].startswith("stale")


def test_the_feed_may_be_a_few_seconds_behind() -> None:
    assert feed_status(4.9) == "ok"
    assert feed_status(6) == "stale for 6 s"


async def test_a_server_that_has_not_started_is_not_ready(url: str) -> None:
    app = build_app(Settings(database_url=url))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        reply = await client.get("/readyz")

    assert (reply.status_code, reply.json()["checks"]) == (503, {"serving": "starting"})


async def test_concurrent_checks_execute_one_statement(client: httpx.AsyncClient, app: Starlette) -> None:
    seen: list[str] = []
    engine = app.state.database.reader.sync_engine

    def note(_: object, __: object, statement: str, *___: object) -> None:
        seen.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    await asyncio.gather(*(client.get("/readyz") for _ in range(20)))
    sa.event.remove(engine, "before_cursor_execute", note)

    assert len([each for each in seen if "alembic_version" in each]) == 1


async def answer(server: Listening) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(f"http://{server.address.replace('/graphql', '/readyz')}")


@pytest.fixture
async def draining(url: str) -> AsyncIterator[Listening]:
    """Yield a server that drains for some time before it stops."""
    async with listening(url, shutdown_drain_seconds=30) as server:
        yield server


async def test_a_stopping_server_is_first_not_ready_and_then_disconnects_its_clients(
    draining: Listening,
) -> None:
    async with connected(draining) as socket:
        stream = await socket.subscribe("subscription { transitions { cursor } }")
        await stream.next()
        draining.should_exit = True
        while (reply := await answer(draining)).status_code == 200:
            pass

        assert reply.json()["checks"]["serving"] == "draining"
        query = await socket.subscribe("{ __typename }", "2")
        assert await query.next() == {"__typename": "Query"}

        draining.force_exit = True
        assert await socket.closed() == 1012


async def test_a_server_that_drains_exits_normally(serve: Serve) -> None:
    server = await serve(RUNSTATE_SHUTDOWN_DRAIN_SECONDS="0.2")

    assert await server.stop(SIGTERM) == 0
