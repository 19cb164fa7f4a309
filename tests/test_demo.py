"""`runstate demo`: the transitions that it reports are stored, and each query of GraphiQL's tabs finds something."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Any

import pytest
from graphql import OperationDefinitionNode, OperationType, parse

from runstate.cli.demo import FLOWS, Demo, demo
from runstate.cli.demo_worker import RUNS as WORKED
from runstate.client import AsyncClient
from runstate.client.errors import RefusedError
from runstate.client.sockets import socket_address
from runstate.core.checks.verify import verify
from runstate.database import Database
from tests.client import Ask
from tests.serving import run
from tests.subscribing import Listening, connected, listening

READY = sorted((Path(__file__).parent.parent / "src/runstate/web/graphiql/queries").glob("*.graphql"))
RUNS = 3 * len(FLOWS)
COUNTS = "{ flowRunCounts(groupBy: [FLOW, STATE_NAME]) { flow { name } stateName count } }"


@pytest.fixture
async def steps(server: Listening) -> list[tuple[str, str, str]]:
    """Return the output of a demo of twelve runs that take no time."""
    steps: list[tuple[str, str, str]] = []
    await demo(socket_address(server.address), None, RUNS, inf, lambda *step: steps.append(step))
    return steps


async def test_runs_end_in_every_final_state(live: Ask, url: str, steps: list[tuple[str, str, str]]) -> None:
    assert {"AwaitingRetry", "Retrying", "Cached", "Paused", "Cancelling"} <= {state for _, state, _ in steps}
    counts = {
        (each["flow"]["name"], each["stateName"]): each["count"] for each in (await live(COUNTS))["flowRunCounts"]
    }

    assert counts == {
        ("etl", "Completed"): 2,
        ("etl", "Failed"): 1,
        ("etl", "Scheduled"): 1,
        ("invoices", "Completed"): 2,
        ("invoices", "Cancelled"): 1,
        ("health-check", "Completed"): 2,
        ("health-check", "Failed"): 1,
        ("train-model", "Completed"): 2,
        ("train-model", "Crashed"): 1,
        ("report", "Completed"): 2,
        ("cleanup", "Completed"): 1,
        ("weekly-report", "Completed"): 1,
    }
    assert await findings(url) == []


async def test_steps_name_the_flow_and_the_run(live: Ask, steps: list[tuple[str, str, str]]) -> None:
    tasks = "taskRuns(first: 200) { nodes { name flowRun { name flow { name } } } }"
    found = await live(f"{{ flowRuns(first: 200) {{ nodes {{ name flow {{ name }} }} }} {tasks} }}")
    runs = [f"{each['flow']['name']} / {each['name']}" for each in found["flowRuns"]["nodes"]]
    labels = {label.rpartition(" / ")[0] if label.count(" / ") > 1 else label for label, _, _ in steps}

    assert len(runs) - len(set(runs)) <= 1, "names of two words repeat rarely"
    assert labels <= set(runs)
    assert max(Counter(each["name"] for each in found["taskRuns"]["nodes"]).values()) == 1


async def test_the_speed_divides_durations(live: Ask, server: Listening) -> None:
    await demo(socket_address(server.address), None, 1, 20, lambda *_: None)

    found = await live("{ taskRuns { nodes { policy { retryDelaysSeconds } } } }")
    assert [each["policy"] for each in found["taskRuns"]["nodes"]] == [{"retryDelaysSeconds": [0.1]}] * 4


@pytest.mark.parametrize("speed", ["0", "-1", "nan"])
async def test_a_speed_that_is_not_above_zero_is_refused(speed: str) -> None:
    process = await run("demo", "--speed", speed, environment={})
    output, _ = await process.communicate()

    assert process.returncode == 2
    assert b"is not above 0" in output


async def findings(url: str) -> list[str]:
    """Return the findings of `verify`."""
    database = Database(url)
    found = await verify(database, datetime.now(UTC))
    await database.close()
    return found


async def test_a_second_demo_adds_to_the_first(live: Ask, server: Listening) -> None:
    for runs in (1, 2):
        await demo(socket_address(server.address), None, runs, inf, lambda *_: None)

    assert (await live('{ flowRunCount(where: { stateName: { eq: "Completed" } }) }'))["flowRunCount"] == 3 + 2 * WORKED


async def test_an_unreachable_server_is_reported() -> None:
    process = await run("demo", "--url", "http://127.0.0.1:1/graphql", "--runs", "1", environment={})
    output, _ = await process.communicate()

    assert process.returncode == 3
    assert b"Cannot connect to a server at http://127.0.0.1:1/graphql" in output


async def test_a_refusal_of_the_server_ends_the_demo(server: Listening) -> None:
    async with AsyncClient(server.address) as client:
        with pytest.raises(RefusedError, match="cancelFlowRun: "):
            await Demo(client, lambda *_: None, 1).do("cancelFlowRun", "CancelFlowRunInput", "__typename", id="nothing")


async def test_the_demo_sends_a_key(url: str) -> None:
    async with listening(url, auth_string="ada:lovelace") as server:
        environment = {"RUNSTATE_API_KEY": "ada:lovelace"}
        arguments = ("demo", "--url", server.address, "--runs", "1", "--speed", "inf")
        let_in = await run(*arguments, environment=environment)
        stays_out = await run(*arguments, environment={})
        said, complained = (await let_in.communicate())[0], (await stays_out.communicate())[0]

    assert (let_in.returncode, stays_out.returncode) == (0, 3)
    assert b"Completed" in said
    assert b"The server requires a valid key: set --key or RUNSTATE_API_KEY" in complained


def operation(path: Path) -> OperationDefinitionNode:
    """Return the only operation of a query."""
    (only,) = parse(path.read_text()).definitions
    assert isinstance(only, OperationDefinitionNode)
    return only


async def test_the_first_query_changes_nothing_and_needs_no_variables() -> None:
    first = operation(READY[0])

    assert (first.operation, list(first.variable_definitions or ())) == (OperationType.QUERY, [])


@pytest.mark.usefixtures("steps")
async def test_each_query_finds_something(live: Ask, server: Listening) -> None:
    known = await live("{ flows(first: 1) { nodes { id } } flowRuns(first: 1) { nodes { id } } }")
    now = datetime.now(UTC)
    variables = {
        "flow": known["flows"]["nodes"][0]["id"],
        "run": known["flowRuns"]["nodes"][0]["id"],
        "since": (now - timedelta(days=1)).isoformat(),
        "until": (now + timedelta(hours=1)).isoformat(),
        "seconds": 3600,
        "pool": "demo",
    }
    for path in READY:
        wanted = {each.variable.name.value for each in operation(path).variable_definitions or ()}
        data = await answered(live, server, path, {name: variables[name] for name in wanted})
        assert any(found(value) for value in data.values()), (path.name, data)


async def answered(live: Ask, server: Listening, path: Path, variables: dict[str, Any]) -> dict[str, Any]:
    """Return the data of the answer to a query, or of its first event."""
    payload = {"query": path.read_text(), "variables": variables}
    if operation(path).operation is OperationType.SUBSCRIPTION:
        async with connected(server) as socket, asyncio.timeout(30):
            await socket.say({"type": "subscribe", "id": "1", "payload": payload})
            body = (await socket.hear())["payload"]
    else:
        body = (await live.client.post("/graphql", json=payload)).json()
    assert "errors" not in body, (path.name, body)
    data: dict[str, Any] = body["data"]
    return data


def found(value: Any) -> bool:
    """Return whether an answer contains something: no problem, and no empty list of nodes."""
    if isinstance(value, dict):
        return "code" not in value and value.get("nodes", True) != []
    return bool(value)
