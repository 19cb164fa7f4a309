"""The service for late runs."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Outcome, Request
from runstate.core.states import State
from runstate.documents.policies import CollisionStrategy, ConcurrencyOptions
from runstate.rows import FlowRun
from runstate.services import late
from tests.services.factories import NOW, Making


def due(seconds_ago: float) -> State:
    return states.scheduled(NOW, NOW - timedelta(seconds=seconds_ago))


async def test_a_run_is_late_15_seconds_after_its_time(make: Making) -> None:
    ids = await make.flow_runs([due(60), due(15), due(14.9), due(-60)])

    assert await late.run_once(make.batcher, NOW) == 2
    assert await make.flow_run_names(*ids) == ["Late", "Late", "Scheduled", "Scheduled"]
    assert await late.run_once(make.batcher, NOW) == 0


async def test_the_delay_until_a_run_is_late_is_a_setting(make: Making) -> None:
    run = await make.flow_run(due(3))

    assert await late.run_once(make.batcher, NOW, after=timedelta(seconds=4)) == 0
    assert await late.run_once(make.batcher, NOW, after=timedelta(seconds=2)) == 1
    assert await make.flow_run_names(run) == ["Late"]


async def test_a_late_run_keeps_its_scheduled_time_and_names_the_service(make: Making) -> None:
    run = await make.flow_run(due(60))

    await late.run_once(make.batcher, NOW)

    _, state = await make.history(run)
    assert state.details.scheduled_time == NOW - timedelta(seconds=60)
    assert state.actor == "service:late"


async def test_only_runs_that_wait_for_their_first_start_are_late(make: Making) -> None:
    ago = NOW - timedelta(hours=1)
    others = [states.awaiting_retry(NOW, ago), states.awaiting_concurrency_slot(NOW, ago), states.resuming(NOW, ago)]
    ids = await make.flow_runs([*others, states.pending(), states.running(), states.completed()])
    before = await make.flow_run_names(*ids)

    assert await late.run_once(make.batcher, NOW) == 0
    assert await make.flow_run_names(*ids) == before


async def test_a_late_run_whose_deployment_is_full_and_cancels_new_runs_is_cancelled(make: Making) -> None:
    options = ConcurrencyOptions(collision_strategy=CollisionStrategy.CANCEL_NEW)
    deployment = await make.deployment(concurrency_limit=1, concurrency_options=options)
    first, second = await make.flow_runs([due(60), due(60)], deployment_id=deployment)
    await make.flow_run_enters(first, states.pending())

    assert await late.run_once(make.batcher, NOW) == 1
    assert await make.flow_run_names(first, second) == ["Pending", "Cancelled"]


async def test_a_run_that_cannot_become_late_does_not_delay_others(make: Making) -> None:
    stuck = await make.flow_runs([states.late(NOW, NOW - timedelta(hours=1))] * 450)
    await make.execute(sa.update(FlowRun).values(state_name="Scheduled"))
    behind = await make.flow_runs([due(60)] * 5)

    assert await late.run_once(make.batcher, NOW) == 5
    assert await make.flow_run_names(*behind) == ["Late"] * 5
    assert set(await make.flow_run_names(*stuck)) == {"Scheduled"}


async def test_runs_of_the_same_time_are_all_found(make: Making) -> None:
    await make.flow_runs([due(60)] * 401)

    assert await late.run_once(make.batcher, NOW) == 401


async def test_two_servers_mark_a_run_as_late_once(make: Making, other: Batcher) -> None:
    ids = await make.flow_runs([due(60)] * 250)

    done = await asyncio.gather(*(late.run_once(batcher, NOW) for batcher in (make.batcher, other) for _ in range(2)))

    assert sum(done) == 250
    assert {run.version for run in await make.rows(FlowRun)} == {2}
    assert set(await make.flow_run_names(*ids)) == {"Late"}


class Overtaken(Batcher):
    """A batcher that submits every request twice and returns the second answers, like that of a slower server."""

    async def submit(self, requests: Sequence[Request]) -> list[Outcome]:
        """Submit the requests twice; return the second answers."""
        await super().submit(requests)
        return await super().submit(requests)


async def test_a_second_server_changes_nothing(make: Making) -> None:
    ids = await make.flow_runs([due(60)] * 3)
    batcher = Overtaken(make.database, clock=make.clock, draw=make.batcher.draw, new_id=make.batcher.new_id)

    assert await late.run_once(batcher, NOW) == 0
    assert await make.flow_run_names(*ids) == ["Late"] * 3
    assert {run.version for run in await make.rows(FlowRun)} == {2}
