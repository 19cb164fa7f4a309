"""The server as a process: it starts on both databases and stops on a signal."""

import asyncio
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals

import httpx
import pytest

from runstate.database import Database
from runstate.database.migrate import at_head
from tests.databases import sqlite_url
from tests.serving import DidNotStartError, Serve, run

SCHEMA = Path(__file__).parent.parent / "schema.graphql"


async def ask(url: str, document: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as client:
        return await client.post(url, json={"query": document})


@pytest.mark.parametrize("signal", [SIGINT, SIGTERM])
async def test_a_server_answers_until_it_is_stopped(serve: Serve, signal: Signals) -> None:
    server = await serve()

    reply = await ask(server.url, "{ flows { totalCount } }")

    assert reply.json()["data"] == {"flows": {"totalCount": 0}}
    assert await server.stop(signal) == 0
    with pytest.raises(httpx.ConnectError):
        await ask(server.url, "{ __typename }")


async def test_a_server_creates_missing_tables(serve: Serve, blank_url: str) -> None:
    server = await serve(RUNSTATE_DATABASE_URL=blank_url)

    assert (await ask(server.url, "{ flows { totalCount } }")).json()["data"]
    assert await server.stop() == 0


async def test_written_rows_exist_after_a_restart(serve: Serve) -> None:
    server = await serve()
    await ask(server.url, 'mutation { createFlow(input: { name: "kept" }) { __typename } }')
    await server.stop()

    server = await serve()

    assert (await ask(server.url, "{ flows { nodes { name } } }")).json()["data"] == {
        "flows": {"nodes": [{"name": "kept"}]}
    }


async def test_two_servers_share_a_postgresql_but_not_a_file(serve: Serve, kind: str) -> None:
    await serve()

    if kind == "sqlite":
        with pytest.raises(DidNotStartError, match="Another server uses"):
            await serve()
    else:
        assert (await ask((await serve()).url, "{ flows { totalCount } }")).status_code == 200


@pytest.mark.parametrize("variable", ["RUNSTATE_PORT", "RUNSTATE_DATABASE_URL"])
async def test_a_misconfigured_server_does_not_start(serve: Serve, variable: str) -> None:
    with pytest.raises(DidNotStartError):
        await serve(**{variable: "nonsense"})


async def test_tables_can_be_created_without_serving(blank_url: str) -> None:
    process = await run("migrate", environment={"RUNSTATE_DATABASE_URL": blank_url})

    assert await process.wait() == 0
    database = Database(blank_url)
    assert await at_head(database)
    await database.close()


async def test_the_schema_can_be_printed_without_a_database(tmp_path: Path) -> None:
    nowhere = sqlite_url(tmp_path / "nothing.db")
    process = await run("schema", environment={"RUNSTATE_DATABASE_URL": nowhere})
    printed, _ = await asyncio.wait_for(process.communicate(), timeout=60)

    assert printed.decode() == SCHEMA.read_text()
    assert list(tmp_path.iterdir()) == []
