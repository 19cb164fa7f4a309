"""The service for cancellation."""

import asyncio
from datetime import timedelta

import pytest

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.states import State
from runstate.rows import FlowRun, TaskRun
from runstate.services import cancellation
from tests.services.factories import NOW, Making

DAY = timedelta(days=1)
UNFINISHED = [
    states.scheduled(NOW),
    states.pending(),
    states.running(),
    states.paused(NOW),
    states.cancelling(),
    states.awaiting_retry(NOW),
]
FINISHED = [states.completed(), states.failed(), states.crashed(), states.cancelled()]


async def test_task_runs_of_a_cancelled_flow_run_are_cancelled(make: Making) -> None:
    flow_run = await make.flow_run(states.cancelled())
    unfinished = await make.task_runs(flow_run, UNFINISHED)
    finished = await make.task_runs(flow_run, FINISHED)
    others = await make.task_runs(await make.flow_run(), UNFINISHED)

    assert await cancellation.run_once(make.batcher, NOW) == len(UNFINISHED)
    assert set(await make.task_run_names(*unfinished)) == {"Cancelled"}
    assert await make.task_run_names(*finished) == [state.name for state in FINISHED]
    assert await make.task_run_names(*others) == [state.name for state in UNFINISHED]
    assert await cancellation.run_once(make.batcher, NOW) == 0


@pytest.mark.parametrize("end", [states.completed(), states.failed(), states.crashed()], ids=lambda end: end.name)
async def test_only_cancelled_flow_runs_end_their_task_runs(make: Making, end: State) -> None:
    task_run = await make.task_run(await make.flow_run(end))

    assert await cancellation.run_once(make.batcher, NOW) == 0
    assert await make.task_run_names(task_run) == ["Running"]


async def test_a_cancelled_flow_run_is_considered_for_a_day(make: Making) -> None:
    task_run = await make.task_run(await make.flow_run(states.cancelled()))

    assert await cancellation.run_once(make.batcher, NOW + DAY + timedelta(seconds=1)) == 0
    assert await cancellation.run_once(make.batcher, NOW + DAY) == 1
    assert await make.task_run_names(task_run) == ["Cancelled"]


async def test_all_task_runs_of_a_cancelled_flow_run_are_found(make: Making) -> None:
    await make.task_runs(await make.flow_run(states.cancelled()), [states.running()] * 450)

    assert await cancellation.run_once(make.batcher, NOW) == 450


async def test_a_subflow_run_and_its_task_run_end_with_the_parent(make: Making) -> None:
    parent = await make.flow_run()
    subflow_run, task_run = await make.subflow_run(parent)
    await make.flow_run_enters(parent, states.cancelled(), force=True)

    assert await cancellation.run_once(make.batcher, NOW) == 1
    assert await make.flow_run_names(subflow_run) == ["Cancelled"]
    assert [state.name for state in await make.history(task_run)] == ["Pending", "Running", "Cancelled"]
    assert await cancellation.run_once(make.batcher, NOW) == 0


async def test_a_started_subflow_run_of_a_deployment_becomes_cancelling_once(make: Making) -> None:
    parent = await make.flow_run()
    subflow_run, task_run = await make.subflow_run(parent, deployment_id=await make.deployment())
    await make.flow_run_enters(parent, states.cancelled(), force=True)

    assert await cancellation.run_once(make.batcher, NOW) == 1
    assert await cancellation.run_once(make.batcher, NOW) == 0
    assert [state.name for state in await make.history(subflow_run)] == ["Running", "Cancelling"]
    assert await make.task_run_names(task_run) == ["Cancelling"]


async def test_a_subflow_run_of_a_deployment_that_has_not_started_is_cancelled_immediately(make: Making) -> None:
    parent = await make.flow_run()
    waiting = states.scheduled(NOW, NOW + DAY)
    subflow_run, task_run = await make.subflow_run(parent, waiting, deployment_id=await make.deployment())
    await make.flow_run_enters(parent, states.cancelled(), force=True)

    assert await cancellation.run_once(make.batcher, NOW) == 1
    assert await make.flow_run_names(subflow_run) == ["Cancelled"]
    assert await make.task_run_names(task_run) == ["Cancelled"]


async def test_a_subflow_run_of_a_deployment_that_does_not_end_is_cancelled_after_300_seconds(make: Making) -> None:
    parent = await make.flow_run()
    subflow_run, task_run = await make.subflow_run(parent, deployment_id=await make.deployment())
    await make.flow_run_enters(parent, states.cancelled(), force=True)
    await cancellation.run_once(make.batcher, NOW)

    assert await cancellation.run_once(make.batcher, make.clock.forward(seconds=299)) == 0
    assert await cancellation.run_once(make.batcher, make.clock.forward(seconds=1)) == 1
    assert await make.flow_run_names(subflow_run) == ["Cancelled"]
    assert await make.task_run_names(task_run) == ["Cancelled"]


async def test_subflow_runs_of_subflow_runs_end_too(make: Making) -> None:
    parent = await make.flow_run()
    child, _ = await make.subflow_run(parent)
    grandchild, task_run = await make.subflow_run(child)
    await make.flow_run_enters(parent, states.cancelled(), force=True)

    done = [await cancellation.run_once(make.batcher, NOW) for _ in range(3)]

    assert sum(done) == 2
    assert done[-1] == 0
    assert await make.flow_run_names(child, grandchild) == ["Cancelled", "Cancelled"]
    assert await make.task_run_names(task_run) == ["Cancelled"]


async def test_subflow_runs_of_other_flow_runs_continue(make: Making) -> None:
    parent = await make.flow_run()
    subflow_run, _ = await make.subflow_run(parent)
    ended, _ = await make.subflow_run(await make.flow_run(states.cancelled()), states.completed())

    assert await cancellation.run_once(make.batcher, NOW) == 0
    assert await make.flow_run_names(subflow_run, ended) == ["Running", "Completed"]


async def test_a_cancelling_run_is_cancelled_after_300_seconds(make: Making) -> None:
    run = await make.flow_run()
    await make.flow_run_enters(run, states.cancelling())

    assert await cancellation.run_once(make.batcher, make.clock.forward(seconds=299)) == 0
    assert await cancellation.run_once(make.batcher, make.clock.forward(seconds=1)) == 1
    state = (await make.history(run))[-1]
    assert state.name == "Cancelled"
    assert "300 seconds" in state.message
    assert state.actor == "service:cancellation"


async def test_all_overdue_cancelling_runs_are_found(make: Making) -> None:
    await make.flow_runs([states.cancelling()] * 401)

    assert await cancellation.run_once(make.batcher, make.clock.forward(seconds=300)) == 401


async def test_two_servers_cancel_a_run_once(make: Making, other: Batcher) -> None:
    flow_run = await make.flow_run(states.cancelled())
    await make.task_runs(flow_run, [states.running()] * 250)

    done = await asyncio.gather(
        *(cancellation.run_once(batcher, NOW) for batcher in (make.batcher, other) for _ in range(2))
    )

    assert sum(done) == 250
    assert {run.version for run in await make.rows(TaskRun)} == {2}


async def test_runs_that_are_cancelled_before_they_start_have_no_start_time(make: Making) -> None:
    parent = await make.flow_run(states.cancelled())
    subflow_run, mirror = await make.subflow_run(parent, states.scheduled(NOW))
    unstarted, started = await make.task_runs(parent, [states.pending(), states.running()])

    await cancellation.run_once(make.batcher, NOW)

    (ended,) = await make.rows(FlowRun, FlowRun.id == subflow_run)
    times = {run.id: run.start_time for run in await make.rows(TaskRun)}
    assert (ended.state_name, ended.start_time, ended.end_time) == ("Cancelled", None, NOW)
    assert times == {mirror: None, unstarted: None, started: NOW}
