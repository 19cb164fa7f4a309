"""`runstate watch`: every transition once despite lost connections; the exit code is the result of the run."""

import asyncio
import re
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from runstate.__main__ import cli
from runstate.cli.watch import Everything, OneRun, Table, ending, named, subscription_of, watch
from runstate.client.errors import RefusedError
from runstate.client.sockets import socket_address
from runstate.database import Database
from tests.client import Ask
from tests.credentials import Keys, asking_with
from tests.graphql.mutations import make_flow_run, make_task_run, propose
from tests.serving import run
from tests.subscribing import Listening, listening

ADDRESSES = {
    "http://host:4200/graphql": "ws://host:4200/graphql",
    "https://host/": "wss://host/graphql",
    "host:4200": "ws://host:4200/graphql",
    "wss://host/path?x=1": "wss://host/path?x=1",
}


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


class Shown:
    """The transitions that were shown, in order."""

    def __init__(self) -> None:
        self.queue = asyncio.Queue[dict[str, Any]]()
        self.notes: list[str] = []

    async def next(self, number: int) -> list[tuple[int, str]]:
        """Return the next transitions: version and state type."""
        async with asyncio.timeout(30):
            entries = [await self.queue.get() for _ in range(number)]
        return [(entry["version"], entry["stateType"]) for entry in entries]


def watching(server: Listening, wish: Any, shown: Shown) -> asyncio.Task[None]:
    """Start watching in the background."""
    address = socket_address(server.address)
    return asyncio.create_task(watch(address, wish, shown.queue.put_nowait, shown.notes.append))


def test_a_url_with_another_scheme_is_refused() -> None:
    with pytest.raises(RefusedError, match="begins with http:// or https://, not with ftp://"):
        socket_address("ftp://host:4200")


@pytest.mark.parametrize("url", ADDRESSES)
def test_a_url_with_http_is_accepted(url: str) -> None:
    assert socket_address(url) == ADDRESSES[url]


async def test_a_run_is_watched_to_its_end(server: Listening, live: Ask) -> None:
    for state, code in (("COMPLETED", 0), ("FAILED", 1), ("CRASHED", 1), ("CANCELLED", 2)):
        run_id, shown = await make_flow_run(live), Shown()
        wish = OneRun(run_id, until_final=True)
        task = watching(server, wish, shown)
        assert await shown.next(1) == [(1, "PENDING")]
        await propose(live, run_id, state, force=True)
        await task

        assert await shown.next(1) == [(2, state)]
        assert ending(wish) == code


async def test_watching_an_ended_run_ends_immediately(server: Listening, live: Ask) -> None:
    run_id = await make_task_run(live)
    await propose(live, run_id, "FAILED", task=True, force=True)
    wish = OneRun(run_id, 2, until_final=True)

    await watching(server, wish, Shown())

    assert ending(wish) == 1


async def test_matching_transitions_are_shown(server: Listening, live: Ask) -> None:
    cursor = (await live("{ transitionCursor }"))["transitionCursor"]
    one, other = await make_flow_run(live), await make_flow_run(live)
    shown = Shown()
    task = watching(server, Everything({"runIds": [other]}, cursor), shown)

    assert await shown.next(1) == [(1, "PENDING")]
    await propose(live, one, "RUNNING")
    await propose(live, other, "COMPLETED")
    assert await shown.next(1) == [(2, "COMPLETED")]
    task.cancel()


async def test_a_lost_connection_is_reopened_and_nothing_is_missed(server: Listening, live: Ask) -> None:
    run_id = await make_flow_run(live)
    wish, shown = Everything(), Shown()
    task = watching(server, wish, shown)
    while not wish.after:
        await server.hub.join()
    versions: list[tuple[int, str]] = []
    for state in ("RUNNING", "COMPLETED"):
        for connection in list(server.server_state.connections):
            if hasattr(connection, "keepalive_timeout"):
                connection.transport.abort()
        await propose(live, run_id, state)
        versions += await shown.next(1)
    task.cancel()

    assert versions == [(2, "RUNNING"), (3, "COMPLETED")]
    connected = f"Connected to ws://{server.address}"
    assert shown.notes[0] == shown.notes[-1] == connected
    assert any("econnect" in note for note in shown.notes)


async def test_a_refusal_of_the_server_ends_watching(server: Listening, live: Ask) -> None:
    unknown = "01900000-0000-7000-8000-000000000000"
    flow_run = await make_flow_run(live)
    for wish, said in (
        (Everything(after="nonsense"), "The cursor is malformed"),
        (Everything({"nothing": 1}), "nothing"),
        (OneRun(unknown), "No run has the id"),
        (OneRun("nonsense"), "No run has the id"),
        (OneRun(flow_run, 99), "version 1"),
    ):
        with pytest.raises(RefusedError, match=said):
            await watching(server, wish, Shown())


async def test_a_url_without_a_websocket_ends_watching(server: Listening) -> None:
    with pytest.raises(RefusedError, match=r"no GraphQL API at this path .*404"):
        await watch(f"ws://{server.address}/nowhere", Everything(), print, print)


async def test_the_output_to_a_pipe_is_lines_of_json(server: Listening, live: Ask) -> None:
    cursor = (await live("{ transitionCursor }"))["transitionCursor"]
    flow_run = await make_flow_run(live)
    process = await run("watch", server.address, "--after", cursor, environment={})
    assert process.stdout
    assert await process.stdout.readline() == f"Connected to ws://{server.address}\n".encode()
    entry = orjson.loads(await process.stdout.readline())
    process.terminate()
    await process.communicate()

    assert (entry["runId"], entry["version"], entry["stateType"]) == (flow_run, 1, "PENDING")
    assert entry["cursor"]
    found = (await live("query($id: ID!) { flowRun(id: $id) { name flow { name } } }", id=flow_run))["flowRun"]
    assert (entry["runName"], entry["flowName"]) == (found["name"], found["flow"]["name"])


async def test_the_exit_code_is_the_result_of_the_run(server: Listening, live: Ask) -> None:
    flow_run = await make_flow_run(live)
    await propose(live, flow_run, "CANCELLED", force=True)
    process = await run("watch", server.address, "--run", flow_run, "--until-final", environment={})
    output, _ = await process.communicate()

    assert [orjson.loads(line)["stateType"] for line in output.splitlines()[1:]] == ["PENDING", "CANCELLED"]
    assert process.returncode == 2


@pytest.mark.parametrize(
    "options",
    [
        ["--until-final"],
        ["--run", "x", "--where", "{}"],
        ["--run", "x", "--after", "cursor"],
        ["--where", "{"],
        ["--where", "[]"],
    ],
)
def test_contradictory_options_are_refused(options: list[str]) -> None:
    result = CliRunner().invoke(cli, ["watch", "http://127.0.0.1:1", *options])

    assert result.exit_code == 3
    assert result.output


def test_options_become_the_subscription() -> None:
    everything = subscription_of(None, '{"runKind": "FLOW_RUN"}', "c", until_final=False)
    one = subscription_of("r", None, "7", until_final=True)

    assert isinstance(everything, Everything)
    assert (everything.where, everything.after) == ({"runKind": "FLOW_RUN"}, "c")
    assert isinstance(one, OneRun)
    assert (one.run, one.version, one.until_final) == ("r", 7, True)


FLOW = {"name": "etl"}


@pytest.mark.parametrize(
    ("kind_of_run", "run", "shown"),
    [
        ("FLOW_RUN", {"name": "zealous-otter", "flow": FLOW}, "etl / zealous-otter"),
        (
            "TASK_RUN",
            {"name": "load-1", "flowRun": {"name": "zealous-otter", "flow": FLOW}},
            "etl / zealous-otter / load-1",
        ),
        ("TASK_RUN", {"name": "load-1", "flowRun": None}, "load-1"),
        ("TASK_RUN", None, "r" * 36),
    ],
)
def test_the_output_to_a_terminal_is_a_table(
    capsys: pytest.CaptureFixture[str], kind_of_run: str, run: dict[str, Any] | None, shown: str
) -> None:
    table = Table()
    entry = {
        "occurred": "2026-01-01T12:00:00.000000Z",
        "runKind": kind_of_run,
        "runId": "r" * 36,
        "version": 3,
        "stateName": "Late",
        "stateType": "SCHEDULED",
        "message": "at last",
        "run": run,
    }
    table(named(entry))

    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["occurred", "version", "state", "run"]
    assert re.split(" {2,}", line) == ["2026-01-01 12:00:00.000", "3", "Late", shown, "at last"]


@pytest.mark.parametrize("variable", [True, False], ids=["variable", "option"])
async def test_a_key_is_sent(url: str, database: Database, *, variable: bool) -> None:
    key = await Keys(database).make("ci", "propose")
    async with listening(url, authentication="keys") as server, asking_with(server, key) as ask:
        flow_run = await make_flow_run(ask)
        await propose(ask, flow_run, "COMPLETED", force=True)
        options, environment = ([], {"RUNSTATE_API_KEY": key}) if variable else (["--key", key], {})
        words = ["watch", server.address, "--run", flow_run, "--until-final", *options]
        process = await run(*words, environment=environment)
        output, _ = await process.communicate()

    assert process.returncode == 0, output
    assert [orjson.loads(line)["stateType"] for line in output.splitlines()[1:]] == ["PENDING", "COMPLETED"]


async def test_user_and_password_are_sent(url: str) -> None:
    async with listening(url, auth_string="ops:secret") as server:
        process = await run("watch", server.address, "--run", "nonsense", "--key=ops:secret", environment={})
        output, _ = await process.communicate()

    assert (process.returncode, b"No run has the id" in output) == (3, True)


@pytest.mark.parametrize("key", [None, "rs_nonsense", "ops:secret"])
async def test_a_missing_key_ends_watching(url: str, key: str | None) -> None:
    async with listening(url, authentication="keys") as server:
        with pytest.raises(RefusedError, match="requires a valid key"):
            await watch(socket_address(server.address), Everything(), print, print, key)


async def test_a_revoked_key_ends_watching(url: str, database: Database) -> None:
    keys = Keys(database)
    key = await keys.make("ci")
    async with listening(url, authentication="keys") as server, asking_with(server, key) as ask:
        shown = Shown()
        watched = watch(socket_address(server.address), Everything(), shown.queue.put_nowait, shown.notes.append, key)
        task = asyncio.create_task(watched)
        while not shown.queue.qsize():
            await make_flow_run(ask)
        await keys.revoke("ci")

        with pytest.raises(RefusedError, match="revoked or has expired"):
            await task
    assert [note.split()[0] for note in shown.notes] == ["Connected"]
