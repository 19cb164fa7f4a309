"""PostgreSQL behind PgBouncer in transaction mode: a server connection belongs to a client for one transaction only."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from runstate.app import build_app
from runstate.core.checks.verify import verify
from runstate.database import Database
from runstate.database.migrate import at_head, migrate
from runstate.feed.notifications import Notifications
from runstate.settings import Settings
from tests.client import asking, running
from tests.graphql.mutations import make_flow_run, propose
from tests.pooler import IGNORING, PREPARING, pooled, prepares_statements

CLIENTS = 16


@pytest.fixture
def kind() -> str:
    return "postgresql"


@pytest.fixture(params=["", IGNORING, f"{IGNORING}\n{PREPARING}"], ids=["plain", "ignoring", "preparing"])
async def through(request: pytest.FixtureRequest, blank_url: str, tmp_path: Path) -> AsyncIterator[str]:
    """Yield the URL of a database without tables, through PgBouncer with default and with common settings."""
    if PREPARING in request.param and not prepares_statements():
        pytest.skip("This pgbouncer does not prepare statements: that came with 1.21.")
    async with pooled(blank_url, tmp_path, request.param) as url:
        yield url


async def test_concurrent_clients_create_orchestrate_and_read_runs(through: str) -> None:
    app = build_app(Settings(database_url=through))
    async with running(app), asking(app) as ask:

        async def live() -> None:
            run = await make_flow_run(ask)
            for state in ("RUNNING", "COMPLETED"):
                assert (await propose(ask, run, state))["status"] == "ACCEPT"
            found = await ask("query($id: ID!) { flowRun(id: $id) { stateName states { nodes { name } } } }", id=run)
            assert [each["name"] for each in found["flowRun"]["states"]["nodes"]]
            assert found["flowRun"]["stateName"] == "Completed"

        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(live())
        ready = await ask.client.get("/readyz")
        assert (ready.status_code, await verify(app.state.database, datetime.now(UTC))) == (200, [])


async def test_settings_apply_to_every_transaction_and_are_not_left_behind(through: str, blank_url: str) -> None:
    database, direct = Database(through, statement_timeout_seconds=3, schema="app"), Database(blank_url)
    await migrate(database)
    assert await at_head(database)
    assert not await at_head(direct)
    async with database.read() as connection:
        assert await connection.scalar(sa.text("SHOW statement_timeout")) == "3s"
    async with database.write() as transaction:
        assert await transaction.connection.scalar(sa.text("SHOW statement_timeout")) == "3s"
        assert await transaction.connection.scalar(sa.text("SELECT current_schema()")) == "app"
    other = Database(through)
    async with other.read() as connection:
        assert await connection.scalar(sa.text("SELECT current_schema()")) == "public"
    for each in (database, direct, other):
        await each.close()


async def test_an_error_leaves_the_connection_usable(through: str) -> None:
    database = Database(through)
    for _ in range(8):
        with pytest.raises(sa.exc.DBAPIError):
            async with database.read() as connection:
                await connection.execute(sa.text("SELECT 1 / 0"))
        async with database.read() as connection:
            assert await connection.scalar(sa.text("SELECT 1")) == 1
    await database.close()


async def test_replicas_notify_each_other_by_a_direct_connection(through: str, blank_url: str) -> None:
    ways = {None: False, blank_url: True}
    for direct_url, listens in ways.items():
        database = Database(through, direct_url=direct_url)
        async with database.read():
            pass
        heard = asyncio.Event()
        notifications = Notifications(database)
        notifications.subscribe("log", heard.set)
        notifications.start()
        assert bool(notifications.tasks) == listens
        if listens:
            async with asyncio.timeout(30):
                await notifications.listening.wait()
                await heard.wait()
        await notifications.stop()
        await database.close()
