"""The service for orphans."""

import asyncio
from datetime import timedelta

import pytest

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.checks.verify import verify
from runstate.core.states import State
from runstate.documents.states import StateDetails
from runstate.rows import ConcurrencyLease, TaskRun
from runstate.services import orphans
from tests.services.factories import NOW, Making
from tests.services.test_cancellation import FINISHED, UNFINISHED

GRACE = timedelta(seconds=10)
LOST = [states.crashed(), states.failed()]
IN_BACKGROUND = StateDetails(deferred=True)


@pytest.mark.parametrize("end", LOST, ids=lambda end: end.name)
async def test_unfinished_task_runs_of_a_lost_flow_run_crash_after_10_seconds(make: Making, end: State) -> None:
    flow_run = await make.flow_run(end)
    unfinished = await make.task_runs(flow_run, UNFINISHED)
    finished = await make.task_runs(flow_run, FINISHED)

    assert await orphans.run_once(make.batcher, NOW + GRACE - timedelta(microseconds=1)) == 0
    assert await orphans.run_once(make.batcher, NOW + GRACE) == len(UNFINISHED)
    assert set(await make.task_run_names(*unfinished)) == {"Crashed"}
    assert await make.task_run_names(*finished) == [state.name for state in FINISHED]
    assert await orphans.run_once(make.batcher, NOW + GRACE) == 0


@pytest.mark.parametrize("state", [states.running(), states.completed(), states.cancelled()], ids=lambda it: it.name)
async def test_task_runs_of_other_flow_runs_are_unchanged(make: Making, state: State) -> None:
    task_run = await make.task_run(await make.flow_run(state))

    assert await orphans.run_once(make.batcher, NOW + GRACE) == 0
    assert await make.task_run_names(task_run) == ["Running"]


async def test_slots_of_orphaned_task_runs_are_released(make: Making) -> None:
    await make.limit("tag:x", 1)
    flow_run = await make.flow_run()
    task_run = await make.task_run(flow_run, states.pending(), tags=["x"])
    await make.task_run_enters(task_run, states.running())
    await make.flow_run_enters(flow_run, states.crashed())
    assert len(await make.rows(ConcurrencyLease)) == 1

    assert await orphans.run_once(make.batcher, make.clock.forward(seconds=10)) == 1
    assert await make.rows(ConcurrencyLease) == []
    assert await verify(make.database, make.clock.now) == []


async def test_a_result_that_arrives_later_is_accepted(make: Making) -> None:
    task_run = await make.task_run(await make.flow_run(states.failed()))
    await orphans.run_once(make.batcher, make.clock.forward(seconds=10))

    await make.task_run_enters(task_run, states.completed())
    assert await make.task_run_names(task_run) == ["Completed"]


async def test_background_task_runs_continue(make: Making) -> None:
    flow_run = await make.flow_run(states.crashed())
    task_run = await make.task_run(flow_run, states.scheduled(NOW, details=IN_BACKGROUND))
    await make.task_run_enters(task_run, State(type=states.pending().type, details=IN_BACKGROUND))
    await make.task_run_enters(task_run, states.running(), force=True)

    assert await orphans.run_once(make.batcher, NOW + GRACE) == 0
    assert await make.task_run_names(task_run) == ["Running"]


async def test_a_subflow_run_and_its_task_runs_crash_with_the_parent(make: Making) -> None:
    parent = await make.flow_run()
    subflow_run, mirror = await make.subflow_run(parent)
    task_run = await make.task_run(subflow_run)
    await make.flow_run_enters(parent, states.crashed())

    assert await orphans.run_once(make.batcher, make.clock.forward(seconds=10)) == 1
    assert await make.flow_run_names(subflow_run) == ["Crashed"]
    assert await make.task_run_names(mirror, task_run) == ["Crashed", "Running"]
    assert await orphans.run_once(make.batcher, make.clock.forward(seconds=10)) == 1
    assert await make.task_run_names(task_run) == ["Crashed"]


async def test_a_subflow_run_of_a_deployment_continues_without_its_parent(make: Making) -> None:
    parent = await make.flow_run()
    subflow_run, mirror = await make.subflow_run(parent, deployment_id=await make.deployment())
    await make.flow_run_enters(parent, states.crashed())

    assert await orphans.run_once(make.batcher, make.clock.forward(seconds=10)) == 0
    assert await make.flow_run_names(subflow_run) == ["Running"]
    assert await make.task_run_names(mirror) == ["Running"]


async def test_a_lost_flow_run_is_considered_for_a_day(make: Making) -> None:
    await make.task_run(await make.flow_run(states.crashed()))
    day = timedelta(days=1)

    assert await orphans.run_once(make.batcher, NOW + day + timedelta(seconds=1)) == 0
    assert await orphans.run_once(make.batcher, NOW + day) == 1


async def test_two_servers_end_a_run_once(make: Making, other: Batcher) -> None:
    await make.task_runs(await make.flow_run(states.crashed()), [states.running()] * 250)

    done = await asyncio.gather(
        *(orphans.run_once(batcher, NOW + GRACE) for batcher in (make.batcher, other) for _ in range(2))
    )

    assert sum(done) == 250
    assert {run.version for run in await make.rows(TaskRun)} == {2}
