"""The log line of an operation has its duration and its number of statements."""

import asyncio

import structlog

from tests.client import Ask
from tests.graphql.mutations import make_flow_run, propose
from tests.subscribing import Socket


async def test_an_operation_is_logged_with_its_statements_and_its_duration(ask: Ask) -> None:
    with structlog.testing.capture_logs() as logs:
        await ask("{ flows { nodes { id } } flowRunCount }")

    (said,) = (each for each in logs if each["event"] == "operation_answered")
    assert (said["log_level"], said["statements"]) == ("debug", 2)
    assert said["milliseconds"] >= 0


async def test_a_subscription_with_errors_in_each_event_is_logged_with_each_code_once(
    live: Ask, socket: Socket
) -> None:
    run = await make_flow_run(live)

    with structlog.testing.capture_logs() as logs:
        subscription = await socket.subscribe(
            "subscription($id: ID!) { flowRun(id: $id) { history(last: 0) { id } } }", id=run
        )
        failed = [await subscription.message()]
        for state in ("RUNNING", "COMPLETED"):
            await propose(live, run, state)
            failed.append(await subscription.message())
        await subscription.stop()
        async with asyncio.timeout(10):
            while not (said := [each for each in logs if each.get("type") == "subscription"]):
                await live("{ flowRunCount }")

    assert [len(each["payload"]["errors"]) for each in failed] == [1, 1, 1]
    assert [(each["codes"], each["events"]) for each in said] == [(["BAD_USER_INPUT"], 3)]
    metrics = (await live.client.get("/metrics")).text
    assert 'code="BAD_USER_INPUT"} 3.0' in metrics
