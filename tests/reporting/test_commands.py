"""`runstate runs`, `flows` and `limits`: lines of JSON in a pipe, and changes of one run or of many."""

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from runstate.__main__ import cli
from runstate.client import Client
from tests.client import Ask
from tests.graphql.mutations import create, make_flow_run, propose
from tests.subscribing import Listening


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


async def run(server: Listening, *arguments: str, answer: str | None = None) -> Result:
    """Execute a command."""
    environment = {"RUNSTATE_URL": f"http://{server.address}"}
    return await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=environment, input=answer)


def lines(result: Result) -> list[Any]:
    """Return the JSON of each line. The server of the test writes its log there, too."""
    assert result.exit_code == 0, result.output
    return [json.loads(each) for each in result.stdout.splitlines() if each.startswith("{")]


async def test_runs_are_listed_by_conditions(server: Listening, ask: Ask) -> None:
    failed, other = await make_flow_run(ask), await make_flow_run(ask)
    await propose(ask, failed, "FAILED")

    assert [each["id"] for each in lines(await run(server, "runs", "list", "--state", "failed"))] == [failed]
    assert [each["id"] for each in lines(await run(server, "runs", "list", "--since", "1h"))] == [other, failed]
    assert lines(await run(server, "runs", "list", "--flow", "nothing")) == []
    assert (await run(server, "runs", "list", "--since", "soon")).exit_code == 2


async def test_a_run_is_shown_with_its_states_and_task_runs(server: Listening, client: Client) -> None:
    def script() -> str:
        with client.flow_run("etl") as flow_run:
            flow_run.task("load").run(lambda: None)
        return flow_run.id

    shown = await asyncio.to_thread(script)
    (line,) = lines(await run(server, "runs", "show", shown))
    assert [each["name"] for each in line["states"]] == ["Pending", "Running", "Completed"]
    assert [(each["taskKey"], each["stateName"]) for each in line["taskRuns"]] == [("load", "Completed")]
    assert (await run(server, "runs", "show", "nothing")).exit_code == 3


async def test_one_run_is_paused_resumed_and_cancelled(server: Listening, ask: Ask) -> None:
    flow_run = await make_flow_run(ask)
    await propose(ask, flow_run, "RUNNING")
    said = [(await run(server, "runs", verb, flow_run)).stdout for verb in ("pause", "resume", "cancel")]
    names = [line.split()[1] for each in said for line in each.splitlines() if line.startswith(flow_run)]
    refused = await run(server, "runs", "pause", flow_run)

    assert names == ["Paused", "Running", "Cancelling"]
    assert refused.exit_code == 1


async def test_many_runs_are_changed_after_a_question(server: Listening, ask: Ask) -> None:
    for _ in range(3):
        await propose(ask, await make_flow_run(ask), "FAILED")
    command = ("runs", "delete", "--state", "failed")
    declined = await run(server, *command, answer="n\n")
    count = await ask("{ flowRunCount }")
    deleted = await run(server, *command, "--yes")

    assert (declined.exit_code, count) == (1, {"flowRunCount": 3})
    assert "3 of 3 flow runs will be deleted" in declined.stderr
    assert "3 flow runs were deleted.\n" in deleted.stdout
    assert await ask("{ flowRunCount }") == {"flowRunCount": 0}
    assert (await run(server, "runs", "cancel")).exit_code == 2


async def test_flows_and_limits_are_listed(server: Listening, ask: Ask) -> None:
    await create(ask, "flow", name="etl")
    await create(ask, "concurrencyLimit", name="tag:db", limit=2)

    assert [each["name"] for each in lines(await run(server, "flows", "list"))] == ["etl"]
    assert [(each["name"], each["limit"]) for each in lines(await run(server, "limits", "list"))] == [("tag:db", 2)]


async def test_an_unreachable_server_is_named() -> None:
    result = await asyncio.to_thread(CliRunner().invoke, cli, ["flows", "list", "--url", "http://127.0.0.1:1"])
    assert result.exit_code == 3
    assert "No server answers at http://127.0.0.1:1/graphql" in result.stderr
