"""A user's script, whose types mypy checks with the tests."""

import asyncio
from typing import assert_type

from runstate.client import AsyncClient, Client, State, TaskFuture, flow, task
from runstate.client.records import FlowRunRecord


@task(retries=1)
def add(left: int, right: int) -> int:
    """Return a sum."""
    return left + right


@task
async def double(value: float) -> float:
    """Return twice a value."""
    return 2 * value


def extract() -> list[int]:
    """Return rows."""
    return [1, 2]


async def test_values_have_the_types_of_functions(client: Client, aclient: AsyncClient) -> None:
    @flow(client=client)
    def total(start: int) -> int:
        future = add.submit(start, right=1)
        assert_type(future, TaskFuture[int])
        assert_type(add(1, 2), int)
        return future.result()

    def script() -> State:
        with client.flow_run("etl") as run:
            rows = run.task("extract").run(extract)
            assert_type(rows, list[int])
            assert_type(run.task("count").run(len, rows), int)
        for each in client.flow_runs():
            assert_type(each, FlowRunRecord)
        assert_type(total(1), int)
        return client.wait_for(run)

    assert (await asyncio.to_thread(script)).is_completed()
    async with aclient.flow_run("etl") as run:
        assert_type(await run.task("double").arun(double.function, 1.5), float)
        assert_type(await double(1.5), float)
        assert_type(await double.submit(1.5), float)
