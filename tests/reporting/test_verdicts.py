"""A run that executes in a client honours each verdict of the rules."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from runstate.client import (
    AbortedError,
    AsyncClient,
    Cancelled,
    Client,
    FinalRunError,
    PausedRun,
)
from tests.client import Ask
from tests.graphql.mutations import create, propose

PATIENCE_SECONDS = 30


async def history(ask: Ask, run: str) -> list[str]:
    """Return the names of the states of a run."""
    found = await ask("query($id: ID!) { node(id: $id) { ... on Run { history { name } } } }", id=run)
    return [each["name"] for each in found["node"]["history"]]


def failing(times: int, value: Any = None) -> Callable[[], Any]:
    """Return a function that fails a number of times before it returns a value."""
    calls = iter(range(times))

    def function() -> Any:
        if next(calls, None) is not None:
            raise ValueError("not yet")
        return value

    return function


async def test_a_flow_run_and_its_task_run_complete(client: Client, ask: Ask) -> None:
    def script() -> tuple[str, str]:
        with client.flow_run("etl", parameters={"day": 1}, tags=["nightly"]) as run:
            task = run.task("load", tags=["db"])
            assert task.run(len, [1, 2]) == 2
        return run.id, task.id

    flow_run, task_run = await asyncio.to_thread(script)

    assert await history(ask, flow_run) == ["Pending", "Running", "Completed"]
    assert await history(ask, task_run) == ["Pending", "Running", "Completed"]
    assert (await client_result(client, task_run)) == 2
    found = await ask("query($id: ID!) { flowRun(id: $id) { flow { name } parameters tags } }", id=flow_run)
    assert found["flowRun"] == {"flow": {"name": "etl"}, "parameters": {"day": 1}, "tags": ["nightly"]}


async def client_result(client: Client, run: str) -> Any:
    """Return the result that the state of a run keeps."""
    return (await asyncio.to_thread(client.wait_for, run)).result()


async def test_a_failed_task_run_is_retried_by_the_rules(client: Client, ask: Ask) -> None:
    def script() -> str:
        with client.flow_run("etl") as run:
            task = run.task("load", retries=2)
            assert task.run(failing(2, "done")) == "done"
        return task.id

    states = await history(ask, await asyncio.to_thread(script))

    assert states == ["Pending", "Running", "AwaitingRetry", "Retrying", "AwaitingRetry", "Retrying", "Completed"]


async def test_a_failed_flow_run_is_repeated(client: Client, ask: Ask) -> None:
    run = client.flow_run("etl", retries=1)

    assert await asyncio.to_thread(run.run, failing(1, 5)) == 5
    assert await history(ask, run.id) == ["Pending", "Running", "AwaitingRetry", "Running", "Completed"]


async def test_attempts_repeat_a_block(client: Client, ask: Ask) -> None:
    function = failing(1)
    run = client.flow_run("etl", retries=1)

    def script() -> None:
        for attempt in run.attempts():
            with attempt:
                function()

    await asyncio.to_thread(script)
    assert await history(ask, run.id) == ["Pending", "Running", "AwaitingRetry", "Running", "Completed"]


async def test_a_block_that_fails_ends_its_run(client: Client, ask: Ask) -> None:
    flow_run = client.flow_run("etl", retries=1)
    task_run = flow_run.task("load", retries=3)

    def script() -> None:
        with flow_run, task_run:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await asyncio.to_thread(script)
    assert await history(ask, task_run.id) == ["Pending", "Running", "Failed"]
    assert (await history(ask, flow_run.id))[-1] == "Failed"


async def test_a_retry_of_the_flow_run_does_not_repeat_completed_tasks(client: Client) -> None:
    calls = list[int]()
    run = client.flow_run("etl", retries=1)

    def body(fail: Callable[[], None]) -> None:
        run.task("extract").run(lambda: calls.append(1))
        fail()

    await asyncio.to_thread(run.run, body, failing(1))
    assert calls == [1]


async def test_a_cached_result_is_returned_without_a_call(client: Client, ask: Ask) -> None:
    def script() -> tuple[Any, Any, str]:
        with client.flow_run("etl") as run:
            first = run.task("load", cache_key="k").run(lambda: {"rows": 3})
            again = run.task("load", cache_key="k")
            return first, again.run(failing(1)), again.id

    first, second, run = await asyncio.to_thread(script)
    assert first == second == {"rows": 3}
    assert await history(ask, run) == ["Pending", "Cached"]


async def test_a_run_that_waits_is_woken_by_a_freed_slot(client: Client, ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="tag:db", limit=1)
    started, go = threading.Event(), threading.Event()
    run = client.flow_run("etl")

    def hold() -> None:
        started.set()
        go.wait(PATIENCE_SECONDS)

    def script() -> None:
        with run:
            first = run.submit(lambda: run.task("a", tags=["db"]).run(hold))
            started.wait(PATIENCE_SECONDS)
            second = run.submit(lambda: run.task("b", tags=["db"]).run(lambda: None))
            asyncio.run_coroutine_threadsafe(waits(), loop).result(PATIENCE_SECONDS)
            go.set()
            first.result(PATIENCE_SECONDS)
            second.result(PATIENCE_SECONDS)

    async def waits() -> None:
        count = "{ concurrencyLimits { nodes { waitingCount } } }"
        while (await ask(count))["concurrencyLimits"]["nodes"][0]["waitingCount"] == 0:
            pass

    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.to_thread(script)


async def test_a_cancelled_run_raises_cancelled_in_its_body(client: Client, ask: Ask) -> None:
    run = client.flow_run("etl")
    task = run.task("endless")
    started = threading.Event()

    def endless() -> None:
        started.set()
        while True:
            pass

    def script() -> None:
        with run:
            task.run(endless)

    working = asyncio.create_task(asyncio.to_thread(script))
    await asyncio.to_thread(started.wait, PATIENCE_SECONDS)
    await ask(
        "mutation($id: ID!) { cancelFlowRun(input: { id: $id }) { ... on OrchestrationResult { status } } }", id=run.id
    )
    with pytest.raises(Cancelled):
        await working
    assert await history(ask, run.id) == ["Pending", "Running", "Cancelling", "Cancelled"]
    assert await history(ask, task.id) == ["Pending", "Running", "Cancelled"]


async def test_a_cancelled_run_raises_cancelled_in_a_coroutine(aclient: AsyncClient, ask: Ask) -> None:
    run = aclient.flow_run("etl")

    async def endless() -> None:
        await ask(
            "mutation($id: ID!) { cancelFlowRun(input: { id: $id }) { ... on OrchestrationResult { status } } }",
            id=run.id,
        )
        await asyncio.Event().wait()

    with pytest.raises(Cancelled):
        await run.arun(endless)
    assert (await history(ask, run.id))[-1] == "Cancelled"


async def paused(ask: Ask) -> bool:
    """Return whether a flow run is paused."""
    return bool((await ask("{ flowRunCount(where: { stateType: { eq: PAUSED } }) }"))["flowRunCount"])


async def paused_by_itself(client: Client, ask: Ask, body: Callable[[Any], None], **options: Any) -> Any:
    """Run a body in a thread and resume the run when it is paused; return the run."""
    run = client.flow_run("etl", **options)
    working = asyncio.create_task(asyncio.to_thread(run.run, lambda: body(run)))
    while not await paused(ask):
        pass
    if options.get("on_pause") != "leave":
        resume = "mutation($id: ID!) { resumeFlowRun(input: { id: $id }) { ... on OrchestrationResult { status } } }"
        await ask(resume, id=run.id)
    await working
    return run


async def test_a_paused_run_waits_until_it_is_resumed(client: Client, ask: Ask) -> None:
    run = await paused_by_itself(client, ask, lambda run: run.pause(timeout_seconds=60))
    assert await history(ask, run.id) == ["Pending", "Running", "Paused", "Running", "Completed"]


async def test_a_run_that_leaves_a_pause_stays_paused(client: Client, ask: Ask) -> None:
    with pytest.raises(PausedRun):
        await paused_by_itself(client, ask, lambda run: run.pause(), on_pause="leave")
    assert await ask('{ flowRunCount(where: { stateName: { eq: "Paused" } }) }') == {"flowRunCount": 1}


async def test_a_task_starts_when_its_paused_flow_run_is_resumed(client: Client, ask: Ask) -> None:
    def body(run: Any) -> None:
        pause = "mutation($id: ID!) { pauseFlowRun(input: { id: $id }) { ... on OrchestrationResult { status } } }"
        client.execute(pause, {"id": run.id})
        run.task("load").run(lambda: None)

    run = await paused_by_itself(client, ask, body)
    assert (await history(ask, run.id))[-1] == "Completed"


async def test_a_final_run_is_not_run_again(client: Client, ask: Ask) -> None:
    def script(value: int) -> Any:
        return client.flow_run("etl", idempotency_key="once").run(lambda: {"value": value})

    assert [await asyncio.to_thread(script, each) for each in (1, 2)] == [{"value": 1}] * 2
    with pytest.raises(FinalRunError, match="is Completed and is not run again"):
        await asyncio.to_thread(client.flow_run("etl", idempotency_key="once").__enter__)


async def test_a_task_of_an_ended_flow_run_is_aborted(client: Client, ask: Ask) -> None:
    run = client.flow_run("etl")
    await asyncio.to_thread(run.run, lambda: None)
    with pytest.raises(AbortedError, match="The flow run is not running"):
        await asyncio.to_thread(run.task("late").run, lambda: None)


async def test_a_run_that_another_client_ended_keeps_its_end(client: Client, ask: Ask) -> None:
    run = client.flow_run("etl")

    async def end() -> None:
        await propose(ask, run.id, "COMPLETED")

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(run.run, lambda: asyncio.run_coroutine_threadsafe(end(), loop).result())
    assert await history(ask, run.id) == ["Pending", "Running", "Completed"]


async def test_the_exception_of_a_run_is_raised_again(client: Client) -> None:
    run = client.flow_run("etl")
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(run.run, lambda: 1 / 0)
    state = await asyncio.to_thread(client.wait_for, run)
    assert state.message == "ZeroDivisionError: division by zero"
    with pytest.raises(ZeroDivisionError, match="division by zero") as raised:
        state.result()
    assert "test_verdicts.py" in raised.value.__notes__[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
async def test_an_interrupted_run_is_crashed(client: Client, ask: Ask, error: type[BaseException]) -> None:
    run = client.flow_run("etl")

    def interrupted() -> None:
        raise error

    def script() -> type[BaseException] | None:
        try:
            run.run(interrupted)
        except BaseException as raised:  # noqa: BLE001 - a future of asyncio takes no KeyboardInterrupt
            return type(raised)
        return None

    assert await asyncio.to_thread(script) is error
    assert (await history(ask, run.id))[-1] == "Crashed"
