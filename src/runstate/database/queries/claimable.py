"""Due runs of the queues of a pool: those that workers may claim, and those that limits hold."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database.dialects import among
from runstate.documents.policies import CollisionStrategy
from runstate.documents.pools import HeldBackReason
from runstate.documents.states import StateType
from runstate.rows import ConcurrencyLimit, Deployment, FlowRun, WorkPool, WorkQueue
from runstate.rows.base import JSON

HOLDING = (StateType.PENDING, StateType.RUNNING)
"""Types of states in which runs hold slots of pools and queues."""
SCHEDULED = FlowRun.state_type == sa.literal_column("'SCHEDULED'")
"""The condition on scheduled runs. It is a literal, so that prepared statements use the partial indexes."""
HOLDS = FlowRun.state_type.in_([sa.literal_column(f"'{each.value}'") for each in HOLDING])
STRATEGY = sa.type_coerce(Deployment.concurrency_options, JSON)["collision_strategy"].as_string()
FULL = (
    sa.select(Deployment.id)
    .join(ConcurrencyLimit, ConcurrencyLimit.id == Deployment.concurrency_limit_id)
    .where(
        ConcurrencyLimit.active,
        ConcurrencyLimit.slot_decay_per_second == 0,
        ConcurrencyLimit.occupied >= ConcurrencyLimit.limit,
        # The rules cancel runs of the others.
        sa.func.coalesce(STRATEGY, "") != CollisionStrategy.CANCEL_NEW.value,
    )
)
"""Deployments without a free slot, whose runs wait."""
WAITS = sa.func.coalesce(FlowRun.deployment_id.in_(FULL), sa.false())
"""The condition on runs whose deployment has no free slot."""
UNLIMITED = 2**31
"""Free slots of a pool or queue without a limit."""


class Held(NamedTuple):
    """The number of due runs that are held for one reason, and the id of their queue; None for several queues."""

    reason: HeldBackReason
    runs: int
    queue_id: UUID | None = None


class Claimable(NamedTuple):
    """The ids of runs that can be claimed, in order, and the runs that are held."""

    runs: list[UUID]
    held: list[Held]


def due(before: datetime | sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Return the condition on runs that are due; a retry in a live process starts there."""
    retry = sa.type_coerce(FlowRun.policy, JSON)["retry_type"].as_string()
    in_process = (FlowRun.state_name == "AwaitingRetry") & (sa.func.coalesce(retry, "") == "in_process")
    return SCHEDULED & (FlowRun.next_scheduled_start_time <= before) & ~in_process


async def claimable(
    connection: AsyncConnection, pool: WorkPool, queues: Sequence[WorkQueue], before: datetime, first: int
) -> Claimable:
    """Return the due runs of queues within all limits, by priority of the queue, time and id."""
    free = await _free_slots(connection, pool, queues)
    counts = await _counts(connection, queues, ~WAITS, before)
    waiting = await _counts(connection, queues, WAITS, before)
    open_queues = [] if pool.paused else [each for each in queues if not each.paused]
    slots = {each.id: min(free[each.id], counts.get(each.id, 0)) for each in open_queues}
    # A paused pool or queue holds all of its runs, whatever their deployment.
    paused = {each.id: waiting.pop(each.id, 0) for each in queues if each not in open_queues}
    counts = {each.id: counts.get(each.id, 0) + paused.get(each.id, 0) for each in queues}
    held = [*_held_by_queues(pool, queues, counts, slots)]
    held += [Held(HeldBackReason.DEPLOYMENT_LIMIT, number, queue) for queue, number in waiting.items()]
    beyond = sum(slots.values()) - free[pool.id]
    if beyond > 0:
        held.append(Held(HeldBackReason.POOL_LIMIT, beyond))
    most = min(first, free[pool.id])
    return Claimable(await _first(connection, open_queues, slots, before, most) if most > 0 else [], held)


def _held_by_queues(
    pool: WorkPool, queues: Sequence[WorkQueue], counts: dict[UUID, int], slots: dict[UUID, int]
) -> Any:
    for queue in queues:
        count, given = counts.get(queue.id, 0), slots.get(queue.id, 0)
        if pool.paused or queue.paused:
            reason = HeldBackReason.POOL_PAUSED if pool.paused else HeldBackReason.QUEUE_PAUSED
        else:
            reason = HeldBackReason.QUEUE_LIMIT
        if count > given:
            yield Held(reason, count - given, queue.id)


async def _free_slots(connection: AsyncConnection, pool: WorkPool, queues: Sequence[WorkQueue]) -> dict[UUID, int]:
    """Return the free slots of a pool and its queues by id; a large number for no limit."""
    limits = {pool.id: pool.concurrency_limit, **{each.id: each.concurrency_limit for each in queues}}
    if all(limit is None for limit in limits.values()):
        return dict.fromkeys(limits, UNLIMITED)
    counted = sa.select(FlowRun.work_queue_id, sa.func.count()).join(WorkQueue, WorkQueue.id == FlowRun.work_queue_id)
    held = counted.where(WorkQueue.work_pool_id == pool.id, HOLDS)
    found = await _grouped(connection, held)
    used = {**found, pool.id: sum(found.values())}
    return {key: UNLIMITED if limit is None else max(0, limit - used.get(key, 0)) for key, limit in limits.items()}


async def _counts(
    connection: AsyncConnection, queues: Sequence[WorkQueue], which: sa.ColumnElement[bool], before: datetime
) -> dict[UUID, int]:
    wanted = among(FlowRun.work_queue_id, sorted(each.id for each in queues))
    counted = sa.select(FlowRun.work_queue_id, sa.func.count()).where(wanted, which, due(before))
    return await _grouped(connection, counted)


async def _grouped(connection: AsyncConnection, counted: sa.Select[Any, Any]) -> dict[UUID, int]:
    """Return a count for each queue."""
    return {key: count for key, count in await connection.execute(counted.group_by(FlowRun.work_queue_id)) if key}


async def _first(
    connection: AsyncConnection, queues: Sequence[WorkQueue], slots: dict[UUID, int], before: datetime, most: int
) -> list[UUID]:
    """Return the first runs of all queues. Each queue contributes its first runs, read from the index."""
    arms = [
        sa.select(_arm(queue, before, min(slots[queue.id], most)).subquery()) for queue in queues if slots[queue.id] > 0
    ]
    if not arms:
        return []
    union = sa.union_all(*arms).subquery()
    ordered = sa.select(union.c.id).order_by(union.c.priority, union.c.time, union.c.id).limit(most)
    return list((await connection.execute(ordered)).scalars())


def _arm(queue: WorkQueue, before: datetime, most: int) -> sa.Select[UUID, datetime | None, int]:
    time = FlowRun.next_scheduled_start_time
    columns = (FlowRun.id, time.label("time"), sa.literal(queue.priority).label("priority"))
    return (
        sa.select(*columns)
        .where(FlowRun.work_queue_id == queue.id, ~WAITS, due(before))
        .order_by(time, FlowRun.id)
        .limit(most)
    )
