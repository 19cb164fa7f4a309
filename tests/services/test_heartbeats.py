"""The service for runs whose client is not heard of any more."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.checks.verify import verify
from runstate.core.commands.heartbeats import beat
from runstate.database.bulk import table_of
from runstate.database.dialects import DatabaseTime
from runstate.database.queries.heartbeats import record
from runstate.documents.requests import RunRef
from runstate.documents.states import RunKind
from runstate.rows import ConcurrencyLease, Heartbeat
from runstate.rows.base import Duration
from runstate.services import cleanup, heartbeats
from runstate.services.heartbeats import Attention
from tests.services.factories import NOW, Making

MONITORED: dict[str, Any] = {"heartbeat_seconds": 10.0}


async def start(make: Making, run_id: UUID, *, task: bool = True) -> None:
    """Have the client of a run enter RUNNING, and write that it was heard of."""
    await (make.task_run_enters if task else make.flow_run_enters)(run_id, states.running())
    await make.batcher.heartbeats.write()


async def pass_time(make: Making, seconds: float) -> None:
    """Let time pass for the heartbeats: they are that much older."""
    table = table_of(Heartbeat)
    span = sa.literal(timedelta(seconds=seconds), Duration())
    await make.execute(sa.update(table).values(heard=table.c.heard - span))


async def task_run(make: Making, **columns: Any) -> UUID:
    """Return the id of a RUNNING task run whose client was heard of."""
    made = await make.task_run(None, states.pending(), **{**MONITORED, **columns})
    await start(make, made)
    return made


async def rounds(make: Making) -> int:
    """Run the service once, and write what it noted."""
    done = await heartbeats.run_once(make.batcher, make.clock())
    await make.batcher.heartbeats.write()
    return done


async def test_a_run_crashes_after_three_intervals_without_a_sign_of_life(make: Making) -> None:
    run = await task_run(make)
    await pass_time(make, 29)
    assert await rounds(make) == 0

    await pass_time(make, 2)
    assert await rounds(make) == 1
    state = (await make.history(run))[-1]
    assert (state.name, state.actor) == ("Crashed", "service:heartbeats")
    assert state.message in {"Not heard of for 31 s.", "Not heard of for 32 s."}
    assert state.decision_record.rule == "service:heartbeats"
    assert await rounds(make) == 0


async def test_runs_without_an_interval_and_runs_that_do_not_run_are_not_monitored(make: Making) -> None:
    unmonitored = await task_run(make, heartbeat_seconds=None)
    waiting = [states.pending(), states.scheduled(NOW), states.paused(NOW), states.completed()]
    for state in waiting:
        await make.task_run_enters(await task_run(make), state)
    flow_runs = await make.flow_runs(waiting, **MONITORED)
    await pass_time(make, 1e6)

    assert await rounds(make) == 0
    assert await make.task_run_names(unmonitored) == ["Running"]
    assert await make.flow_run_names(*flow_runs) == [state.name for state in waiting]


async def test_slots_of_a_silent_run_are_released(make: Making) -> None:
    await make.limit("tag:db")
    await task_run(make, tags=["db"])
    assert len(await make.rows(ConcurrencyLease)) == 1
    await pass_time(make, 31)

    assert await rounds(make) == 1
    assert await make.rows(ConcurrencyLease) == []
    assert await verify(make.database, make.clock.now) == []


async def test_the_task_run_that_represents_a_silent_subflow_run_crashes_with_it(make: Making) -> None:
    subflow_run, mirror = await make.subflow_run(await make.flow_run(), states.pending(), **MONITORED)
    await start(make, subflow_run, task=False)
    await pass_time(make, 31)

    assert await rounds(make) == 1
    assert (await make.flow_run_names(subflow_run), await make.task_run_names(mirror)) == (["Crashed"], ["Crashed"])


async def test_a_silent_run_that_is_cancelling_ends(make: Making) -> None:
    flow_run = await make.flow_run(states.pending(), infrastructure_pid="7", **MONITORED)
    await start(make, flow_run, task=False)
    await make.flow_run_enters(flow_run, states.cancelling())
    task = await task_run(make)
    await make.task_run_enters(task, states.cancelling())
    await make.batcher.heartbeats.write()
    await pass_time(make, 31)

    assert await rounds(make) == 2
    assert (await make.flow_run_names(flow_run), await make.task_run_names(task)) == (["Cancelled"], ["Crashed"])


async def test_heartbeats_and_proposals_are_signs_of_life(make: Making) -> None:
    flow_run = await make.flow_run(states.pending(), **MONITORED)
    await start(make, flow_run, task=False)
    beating, proposing = await task_run(make), await task_run(make, heartbeat_seconds=11)
    silent = await task_run(make)
    task_of_flow = await make.task_run(flow_run, states.pending())
    for _ in range(3):
        await pass_time(make, 20)
        answers = await beat(make.batcher, [RunRef(task_run_id=beating)])
        assert [(each.run_id, each.state_type, each.version) for each in answers] == [
            (beating, states.running().type, 2)
        ]
        await make.propose(RunKind.TASK_RUN, proposing, states.scheduled(NOW), dry_run=True)
        await make.propose(RunKind.TASK_RUN, proposing, states.running())
        await make.propose(RunKind.TASK_RUN, task_of_flow, states.running())
        await make.batcher.heartbeats.write()
        await rounds(make)

    assert await make.flow_run_names(flow_run) == ["Running"]
    assert await make.task_run_names(beating, proposing, silent) == ["Running", "Rerunning", "Crashed"]


async def test_a_sign_of_life_before_a_pause_does_not_count_after_it(make: Making) -> None:
    run = await task_run(make)
    await make.task_run_enters(run, states.paused(NOW))
    await pass_time(make, 1000)
    await make.task_run_enters(run, states.running())

    # The heartbeat of the newer state is not written yet: the run gets its full time.
    assert await heartbeats.run_once(make.batcher, NOW) == 0
    await make.batcher.heartbeats.write()
    assert await heartbeats.run_once(make.batcher, NOW) == 0
    await pass_time(make, 31)
    assert await rounds(make) == 1


async def test_a_run_that_is_monitored_later_gets_its_full_time(make: Making) -> None:
    run = await make.task_run(None, **MONITORED)
    assert await make.rows(Heartbeat) == []

    assert await rounds(make) == 0
    assert [each.run_id for each in await make.rows(Heartbeat)] == [run]
    await pass_time(make, 31)
    assert await rounds(make) == 1


async def test_an_older_heartbeat_does_not_replace_a_newer_one(make: Making) -> None:
    run = await task_run(make)
    (newer,) = await make.rows(Heartbeat)
    for version, age in ((newer.version, 5), (newer.version - 1, 0)):
        async with make.database.write() as transaction:
            await record(transaction.connection, [(run, version, timedelta(seconds=age))])

    assert await make.rows(Heartbeat) == [newer]


async def test_heartbeats_that_cannot_be_written_are_kept(make: Making) -> None:
    run = await task_run(make)
    await pass_time(make, 20)
    await make.execute(sa.text("ALTER TABLE heartbeat RENAME TO elsewhere"))
    await beat(make.batcher, [RunRef(task_run_id=run)])
    await make.batcher.heartbeats.write()
    await make.execute(sa.text("ALTER TABLE elsewhere RENAME TO heartbeat"))
    await make.batcher.heartbeats.write()
    await pass_time(make, 20)

    assert await rounds(make) == 0


async def test_two_servers_at_once_crash_a_run_once(make: Making, other: Batcher) -> None:
    runs = await make.task_runs(None, [states.running()] * 250, **MONITORED)
    await rounds(make)
    await pass_time(make, 31)

    done = await asyncio.gather(
        *(heartbeats.run_once(batcher, NOW) for batcher in (make.batcher, other) for _ in range(2))
    )

    assert sum(done) == 250
    assert [len(await make.history(run)) for run in runs[::50]] == [2] * 5


async def test_a_server_that_slept_crashes_nobody_before_the_full_time_has_passed(make: Making) -> None:
    run = await task_run(make)
    await pass_time(make, 31)
    woken = Attention(interval_seconds=5)

    assert await heartbeats.run_once(make.batcher, NOW, attention=woken) == 0
    assert await make.task_run_names(run) == ["Running"]


async def test_heartbeats_of_runs_that_are_not_monitored_any_more_are_deleted(make: Making) -> None:
    ended, running = await task_run(make), await task_run(make)
    await make.task_run_enters(ended, states.completed())
    await cleanup.run_once(make.batcher, NOW)
    assert len(await make.rows(Heartbeat)) == 2
    await pass_time(make, 61)

    assert await cleanup.run_once(make.batcher, NOW) == 1
    assert [each.run_id for each in await make.rows(Heartbeat)] == [running]


async def test_times_are_those_of_the_database(make: Making) -> None:
    make.clock.forward(days=-1000)
    await task_run(make)

    (found,) = await make.rows(Heartbeat)
    async with make.database.read() as connection:
        now: datetime = (await connection.execute(sa.select(DatabaseTime()))).scalar_one()
    assert timedelta(0) <= now - found.heard < timedelta(minutes=1)


def in_seconds(seconds: float) -> datetime:
    """Return the time some seconds after NOW."""
    return NOW + timedelta(seconds=seconds)


def attentive(*starts: float) -> Attention:
    """Return the gaps between rounds that began at some seconds, with an interval of 5 seconds."""
    attention = Attention(interval_seconds=5)
    for each in starts:
        attention.begin_round(in_seconds(each))
    return attention


@pytest.mark.parametrize(
    ("starts", "covered", "uncovered"),
    [
        ([0], [], [1, 10, 86_400]),
        ([*range(0, 31, 5)], [1, 9], [10, 11]),
        ([*range(0, 901, 5), 912], [8, 10, 300], [1, 6, 7]),
        ([*range(0, 901, 5), 1005, 1010, 1015, 1020, 1025], [6, 101, 300], [7, 10, 95]),
        ([*range(0, 901, 5), 912, 917, 922, 927, 932], [1, 6], [7]),
        ([*range(0, 901, 5), -100, -95], [1], [2, 300]),
    ],
)
def test_after_a_gap_each_run_gets_its_full_time(
    starts: list[float], covered: list[float], uncovered: list[float]
) -> None:
    attention = attentive(*starts)

    assert [each for each in covered if not attention.covers(each)] == []
    assert [each for each in uncovered if attention.covers(each)] == []


def test_a_slow_database_keeps_short_intervals_from_crashing_runs_and_nothing_grows() -> None:
    attention = attentive(*(each * 9 for each in range(1000)))

    assert attention.covers(10)
    assert not attention.covers(1)
    assert len(attention.gaps) == 2
