"""The transitions of one run: from the log, from the states if the log is pruned, and until the run has ended."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.documents.policies import FlowRunPolicy, TaskRunPolicy
from runstate.documents.states import RunKind, StateDetails, StateType
from runstate.errors import InvalidInput, NotFound
from runstate.feed import TRANSITIONS, Feed, Hub, RunHistoryPage, follow_run, prune_log
from runstate.feed.history import run_history_page
from runstate.feed.subscriber import BUFFER_SIZE
from runstate.rows import Flow, FlowRun, FlowRunState, TaskRun, TaskRunState, Transition
from tests.feed.factories import NOON, entry, write

COURSE = [StateType.PENDING, StateType.RUNNING, StateType.COMPLETED]


def row(kind: Any, **columns: Any) -> Any:
    """Return an insert of a row, including the columns without a database default."""
    return sa.insert(kind).values({"id": uuid4(), "created": NOON, "updated": NOON, **columns})


async def make_run(database: Database, kind: RunKind, course: list[StateType]) -> UUID:
    """Create a run that went through states, with their log entries; return its id."""
    flow, flow_run, task_run = uuid4(), uuid4(), uuid4()
    run, state = (task_run, TaskRunState) if kind is RunKind.TASK_RUN else (flow_run, FlowRunState)
    now = {"version": len(course), "state_type": course[-1], "state_name": course[-1].value}
    rows = [
        row(Flow, id=flow, name=str(flow), tags=[], labels={}),
        row(FlowRun, id=flow_run, flow_id=flow, parameters={}, context={}, policy=FlowRunPolicy(), **RUN, **now),
    ]
    if kind is RunKind.TASK_RUN:
        rows.append(row(TaskRun, id=task_run, flow_run_id=flow_run, policy=TaskRunPolicy(), **TASK, **RUN, **now))
    rows += [_state(state, run, version, entered) for version, entered in enumerate(course, 1)]
    async with database.write() as transaction:
        for each in rows:
            await transaction.connection.execute(each)
    for version, (left, entered) in enumerate(pairwise([None, *course]), 1):
        assert entered
        await write(database, logged(run, version, entered, left, kind=kind, flow_run=flow_run, flow=flow))
    return run


RUN: dict[str, Any] = {"name": "it", "tags": [], "labels": {}, "run_count": 0, "total_run_time_seconds": 0.0}
TASK: dict[str, Any] = {"task_key": "t", "dynamic_key": "0", "task_inputs": {}, "flow_run_run_count": 0}


def _state(state: Any, run: UUID, version: int, entered: StateType) -> Any:
    columns = {"type": entered, "name": entered.value, "timestamp": NOON, "version": version}
    return row(state, run_id=run, details=StateDetails(), persisted=False, actor="me", **columns)


def logged(
    run: UUID,
    version: int,
    entered: StateType,
    left: StateType | None = None,
    *,
    kind: RunKind = RunKind.FLOW_RUN,
    flow_run: UUID | None = None,
    flow: UUID | None = None,
) -> dict[str, Any]:
    """Return the columns of an entry of a run."""
    names = {"state_name": entered.value, "previous_state_name": left.value if left else None}
    types = {"state_type": entered, "previous_state_type": left}
    return entry(run, version, run_kind=kind, flow_run_id=flow_run or run, flow_id=flow, **names, **types)


async def prune(hub: Hub[Transition]) -> None:
    """Delete every entry of the log."""
    await prune_log(hub.database, TRANSITIONS, NOON, timedelta(days=7))
    await prune_log(hub.database, TRANSITIONS, NOON + timedelta(days=7), timedelta(days=7))


async def versions(stream: AsyncGenerator[RunHistoryPage, None], number: int) -> list[int]:
    """Return the next versions."""
    found: list[int] = []
    while len(found) < number:
        found += [each.version for each in (await anext(stream)).transitions]
    return found


async def test_a_run_is_delivered_from_its_first_version_to_live_transitions(feed: Feed, hub: Hub[Transition]) -> None:
    run = await make_run(hub.database, RunKind.FLOW_RUN, COURSE[:2])

    async with aclosing(await follow_run(feed, RunKind.FLOW_RUN, run)) as stream:
        assert await versions(stream, 2) == [1, 2]
        for version in (3, 4):
            await write(hub.database, logged(run, version, StateType.RUNNING))
            hub.wake()
            assert await versions(stream, 1) == [version]


async def test_a_stream_after_a_version_has_the_later_ones(feed: Feed, hub: Hub[Transition]) -> None:
    run = await make_run(hub.database, RunKind.FLOW_RUN, COURSE)

    async with aclosing(await follow_run(feed, RunKind.FLOW_RUN, run, 1)) as stream:
        assert await versions(stream, 2) == [2, 3]


async def test_a_long_history_has_several_pages(feed: Feed, hub: Hub[Transition]) -> None:
    run = await make_run(hub.database, RunKind.FLOW_RUN, [StateType.COMPLETED] * 250)

    async with aclosing(await follow_run(feed, RunKind.FLOW_RUN, run, until_final=True)) as stream:
        pieces = [piece async for piece in stream]

    assert [each.version for piece in pieces for each in piece.transitions] == list(range(1, 251))
    assert max(len(piece.transitions) for piece in pieces) == 100


@pytest.mark.parametrize("version", [0, 3])
async def test_the_stream_of_an_ended_run_completes(feed: Feed, hub: Hub[Transition], version: int) -> None:
    run = await make_run(hub.database, RunKind.FLOW_RUN, COURSE)

    stream = await follow_run(feed, RunKind.FLOW_RUN, run, version, until_final=True)
    found = [each.version async for piece in stream for each in piece.transitions]

    assert found == list(range(version + 1, 4))


async def test_the_stream_of_a_run_completes_when_it_ends(feed: Feed, hub: Hub[Transition]) -> None:
    run = await make_run(hub.database, RunKind.FLOW_RUN, COURSE[:1])
    stream = await follow_run(feed, RunKind.FLOW_RUN, run, until_final=True)
    assert await versions(stream, 1) == [1]
    receiving = asyncio.ensure_future(versions(stream, 2))
    await write(hub.database, logged(run, 2, StateType.RUNNING), logged(run, 3, StateType.FAILED))
    hub.wake()

    assert await receiving == [2, 3]
    assert [piece async for piece in stream] == []


async def test_the_stream_of_a_restarted_run_continues(feed: Feed, hub: Hub[Transition]) -> None:
    run = await make_run(hub.database, RunKind.FLOW_RUN, [*COURSE, StateType.RUNNING])

    stream = await follow_run(feed, RunKind.FLOW_RUN, run, until_final=True)
    assert await versions(stream, 4) == [1, 2, 3, 4]
    receiving = asyncio.ensure_future(versions(stream, 1))
    await write(hub.database, logged(run, 5, StateType.COMPLETED))
    hub.wake()

    assert await receiving == [5]


async def test_a_slow_subscriber_misses_no_version(feed: Feed, hub: Hub[Transition]) -> None:
    run = await make_run(hub.database, RunKind.FLOW_RUN, COURSE[:1])
    async with aclosing(await follow_run(feed, RunKind.FLOW_RUN, run)) as stream:
        assert await versions(stream, 1) == [1]
        receiving = asyncio.ensure_future(versions(stream, 1))
        await write(hub.database, logged(run, 2, StateType.RUNNING))
        hub.wake()
        assert await receiving == [2]
        await write(hub.database, *(logged(run, version, StateType.RUNNING) for version in range(3, 3 * BUFFER_SIZE)))
        await hub.join()

        assert await versions(stream, 3 * BUFFER_SIZE - 3) == list(range(3, 3 * BUFFER_SIZE))


@pytest.mark.parametrize("run_kind", list(RunKind))
async def test_pruned_transitions_are_restored_from_the_states(hub: Hub[Transition], run_kind: RunKind) -> None:
    run = await make_run(hub.database, run_kind, COURSE)
    logged_before = (await run_history_page(hub.database, run_kind, run, 0)).transitions
    await prune(hub)
    await write(hub.database, logged(run, 4, StateType.RUNNING, kind=run_kind))

    restored = (await run_history_page(hub.database, run_kind, run, 0)).transitions

    assert [each.version for each in restored] == [1, 2, 3, 4]
    names = ["run_kind", "run_id", "flow_run_id", "flow_id", "version", "state_type", "state_name", "occurred"]
    names += ["previous_state_type", "previous_state_name", "tags"]
    for before, after in zip(logged_before, restored[:3], strict=True):
        assert {name: getattr(after, name) for name in names} == {name: getattr(before, name) for name in names}
        assert isinstance(after, Transition)


async def test_an_unknown_run_is_not_found(feed: Feed, hub: Hub[Transition]) -> None:
    with pytest.raises(NotFound):
        await follow_run(feed, RunKind.FLOW_RUN, uuid4())


async def test_the_stream_of_a_deleted_run_ends(feed: Feed, hub: Hub[Transition]) -> None:
    run = await make_run(hub.database, RunKind.FLOW_RUN, COURSE[:2])
    async with hub.database.write() as transaction:
        await transaction.connection.execute(sa.delete(FlowRun).where(FlowRun.id == run))

    stream = await follow_run(feed, RunKind.FLOW_RUN, run, 2, until_final=True)

    assert [piece.transitions async for piece in stream] == [[]]


async def test_a_version_beyond_the_runs_current_one_is_refused(feed: Feed, hub: Hub[Transition]) -> None:
    run = await make_run(hub.database, RunKind.FLOW_RUN, COURSE)

    with pytest.raises(InvalidInput) as refused:
        await follow_run(feed, RunKind.FLOW_RUN, run, 4)
    assert refused.value.path == ("afterVersion",)
