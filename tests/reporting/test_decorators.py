"""Functions as flows and tasks: dependencies, subflows, coroutines, threads and forks."""

import asyncio
import os
import threading
from typing import Any

import pytest

from runstate.client import AsyncClient, Client, flow, task, unmapped
from tests.client import Ask
from tests.subscribing import Listening

INPUTS = """query($run: ID!) { flowRun(id: $run) { stateName taskRuns(orderBy: [{ created: ASC }]) { nodes {
  id taskKey stateName arguments { name inputs { ... on TaskRunResult { id } } } } } } }"""


@task
def add(left: int, right: int = 0) -> int:
    """Return a sum."""
    return left + right


@task
async def double(value: int) -> int:
    """Return twice a value."""
    return 2 * value


@task
def broken() -> int:
    """Raise ValueError."""
    raise ValueError("broken")


async def latest(ask: Ask) -> Any:
    """Return the id of the newest flow run without a parent."""
    found = await ask("{ flowRuns(where: { parentTaskRunId: { isNull: true } }, first: 1) { nodes { id } } }")
    return found["flowRuns"]["nodes"][0]["id"]


async def test_futures_among_the_arguments_are_dependencies(client: Client, ask: Ask) -> None:
    @flow(client=client)
    def total(start: int) -> int:
        first = add.submit(start)
        second = add.submit(first, 1)
        return add.submit(left=first, right=second).result()

    assert await asyncio.to_thread(total, 5) == 11
    run = (await ask(INPUTS, run=await latest(ask)))["flowRun"]
    first, second, third = run["taskRuns"]["nodes"]
    assert run["stateName"] == "Completed"
    assert second["arguments"] == [{"name": "left", "inputs": [{"id": first["id"]}]}]
    assert sorted(each["name"] for each in third["arguments"]) == ["left", "right"]


async def test_a_task_whose_dependency_failed_is_not_ready(client: Client, ask: Ask) -> None:
    @flow(client=client)
    def total() -> int:
        return add.submit(broken.submit()).result()

    with pytest.raises(ValueError, match="broken"):
        await asyncio.to_thread(total)
    run = (await ask(INPUTS, run=await latest(ask)))["flowRun"]
    assert {each["taskKey"]: each["stateName"] for each in run["taskRuns"]["nodes"]} == {
        "broken": "Failed",
        "add": "NotReady",
    }
    assert run["stateName"] == "Failed"


async def test_mapped_tasks_run_once_each(client: Client, ask: Ask) -> None:
    @flow(client=client)
    def total() -> list[int]:
        return [each.result() for each in add.map(range(30), unmapped(1))]

    assert await asyncio.to_thread(total) == list(range(1, 31))
    counts = await ask("{ taskRunCounts(groupBy: [STATE_NAME]) { stateName count } }")
    assert counts["taskRunCounts"] == [{"stateName": "Completed", "count": 30}]


async def test_a_flow_inside_of_a_flow_is_a_subflow(client: Client, ask: Ask) -> None:
    @flow
    def child(value: int) -> int:
        return add(value, 1)

    @flow(client=client)
    def parent() -> int:
        return child(1) + child(2)

    assert await asyncio.to_thread(parent) == 5
    found = await ask("{ flowRuns { nodes { flow { name } stateName parentTaskRun { stateName dynamicKey } } } }")
    children = [each for each in found["flowRuns"]["nodes"] if each["parentTaskRun"]]
    assert [each["parentTaskRun"] for each in reversed(children)] == [
        {"stateName": "Completed", "dynamicKey": "0"},
        {"stateName": "Completed", "dynamicKey": "1"},
    ]


async def test_coroutines_are_flows_and_tasks(aclient: AsyncClient, ask: Ask) -> None:
    @flow(client=aclient)
    async def total() -> int:
        futures = double.map([1, 2])
        return sum([await each for each in futures]) + await double(10)

    # In a loop that runs already, as in a notebook.
    assert await total() == 26
    assert (await ask(INPUTS, run=await latest(ask)))["flowRun"]["stateName"] == "Completed"


async def test_threads_share_a_client(client: Client, ask: Ask) -> None:
    @flow(client=client)
    def one(number: int) -> int:
        return add(number, 1)

    found = await asyncio.gather(*(asyncio.to_thread(one, number) for number in range(8)))
    assert found == list(range(1, 9))
    assert (await ask('{ flowRunCount(where: { stateName: { eq: "Completed" } }) }'))["flowRunCount"] == 8


def in_child(client: Client) -> None:
    """Report a run from a forked process, and end that."""
    code = 1
    try:
        with client.flow_run("child") as run:
            run.task("work").run(lambda: None)
        code = 0
    finally:
        # At once: what is registered to be done at exit is the parent's.
        os._exit(code)


async def test_a_forked_process_uses_the_client(client: Client, ask: Ask) -> None:
    def script() -> int:
        with client.flow_run("parent"):
            process = os.fork()
            if process == 0:
                in_child(client)
            return os.waitpid(process, 0)[1]

    assert await asyncio.to_thread(script) == 0
    found = await ask("{ flowRuns { nodes { flow { name } stateName } } }")
    assert {each["flow"]["name"]: each["stateName"] for each in found["flowRuns"]["nodes"]} == {
        "parent": "Completed",
        "child": "Completed",
    }


async def test_a_flow_without_a_client_uses_the_environment(
    server: Listening, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow
    def alone() -> str:
        return threading.current_thread().name

    monkeypatch.setenv("RUNSTATE_URL", server.address)
    await asyncio.to_thread(alone)
    assert (await ask(INPUTS, run=await latest(ask)))["flowRun"]["stateName"] == "Completed"
    assert not any(each.name == "runstate-client" for each in threading.enumerate())


def test_tasks_are_mapped_inside_of_a_flow() -> None:
    with pytest.raises(RuntimeError, match="inside of a flow"):
        add.map([1])
