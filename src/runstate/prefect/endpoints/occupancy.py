"""Pools and queues at work: their due runs, their health, and the flow runs that hold their slots."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import sqlalchemy as sa
from pydantic import Field

from runstate.database.dialects import among
from runstate.database.driver import fetch
from runstate.database.queries.claimable import HOLDS
from runstate.documents.access import Scope
from runstate.documents.pools import ClaimableFlowRuns
from runstate.documents.states import StateType
from runstate.prefect import objects, reading
from runstate.prefect.bodies import LARGEST_PAGE, Body, Time
from runstate.prefect.endpoint import Call, endpoint
from runstate.prefect.endpoints.work_pools import POOL, due, pool_of, queue_by_id
from runstate.prefect.presentation import Object
from runstate.rows import FlowRun, WorkPool, WorkQueue

QUEUE: Final = "/work_queues/{id}"
POLICY: Final = {"maximum_late_runs": 0, "maximum_seconds_since_last_polled": 60}
"""A queue is healthy without late runs, if it was polled so many seconds ago at most."""
LATE: Final = "Late"
OLDEST: Final = (FlowRun.start_time, FlowRun.id)


class Due(Body):
    """The due runs of a queue that are wanted."""

    scheduled_before: Time | None = None
    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = 10


class Numbered(Body):
    """A page with a number, from 1."""

    page: Annotated[int, Field(ge=1, le=2**20)] = 1
    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = LARGEST_PAGE

    @property
    def offset(self) -> int:
        """Number of rows before the page."""
        return (self.page - 1) * self.limit

    def of(self, count: int) -> Object:
        """Return the members that tell of the page."""
        return {"count": count, "limit": self.limit, "pages": -(-count // self.limit), "page": self.page}


class NumberedPool(Numbered):
    """A page of the queues of a pool, each with some of its flow runs."""

    flow_run_limit: Annotated[int, Field(ge=0, le=LARGEST_PAGE)] = 10


@endpoint("POST", f"{QUEUE}/get_runs", Scope.READ)
async def due_runs(call: Call, body: Due) -> Any:
    """Return the due runs of a queue, in the order in which they are to be started."""
    queue = await queue_by_id(call)
    pool = await objects.only(call, WorkPool, "work pool", queue.work_pool_id, WorkPool.id == queue.work_pool_id)
    wanted = ClaimableFlowRuns(
        work_pool=pool.name, work_queues=[queue.name], due_before=body.scheduled_before, first=body.limit
    )
    return await due(call, wanted)


@endpoint("GET", f"{QUEUE}/status", Scope.READ)
async def health(call: Call) -> Any:
    """Return whether a queue is polled and none of its runs is late."""
    queue = await queue_by_id(call)
    is_late = (FlowRun.state_type == StateType.SCHEDULED) & (FlowRun.state_name == LATE)
    late = await _count(call, sa.and_(FlowRun.work_queue_id == queue.id, is_late))
    return {
        "healthy": not late and _is_polled(queue.last_polled, call.now),
        "late_runs_count": late,
        "last_polled": queue.last_polled,
        "health_check_policy": POLICY,
    }


def _is_polled(last: datetime | None, now: datetime) -> bool:
    return last is not None and (now - last).total_seconds() <= POLICY["maximum_seconds_since_last_polled"]


@endpoint("POST", f"{QUEUE}/concurrency_status", Scope.READ)
async def of_queue(call: Call, body: Numbered) -> Any:
    """Return a page of the flow runs that hold slots of a queue."""
    queue = await queue_by_id(call)
    holding = sa.and_(HOLDS, FlowRun.work_queue_id == queue.id)
    held = await _count(call, holding)
    runs = await reading.flow_runs(call, holding, OLDEST, body.limit, body.offset)
    limit = {"active_slots": held, "concurrency_limit": queue.concurrency_limit}
    return {**limit, "flow_runs": [_summary(each, call.now) for each in runs], **body.of(held)}


@endpoint("POST", f"{POOL}/concurrency_status", Scope.READ)
async def of_pool(call: Call, body: NumberedPool) -> Any:
    """Return a page of the queues of a pool, each with the first flow runs that hold its slots."""
    pool = await pool_of(call)
    mine = WorkQueue.work_pool_id == pool.id
    order = (WorkQueue.priority, WorkQueue.id)
    asked = sa.select(*WorkQueue.__table__.columns).where(mine).order_by(*order)
    queues = await objects.rows(call, WorkQueue, asked.limit(body.limit).offset(body.offset))
    number = await _read(call, sa.select(sa.func.count()).select_from(WorkQueue).where(mine))
    held = await _held(call, pool)
    runs = await _first_runs(call, [each.id for each in queues], body.flow_run_limit)
    return {
        "active_slots": sum(held.values()),
        "concurrency_limit": pool.concurrency_limit,
        "queues": [
            {
                "queue_id": each.id,
                "queue_name": each.name,
                "active_slots": held.get(each.id, 0),
                "concurrency_limit": each.concurrency_limit,
                "flow_runs": [_summary(run, call.now) for run in runs if run["work_queue_id"] == each.id],
                "flow_run_count": held.get(each.id, 0),
            }
            for each in queues
        ],
        **body.of(int(number[0][0])),
    }


async def _held(call: Call, pool: WorkPool) -> dict[Any, int]:
    """Return the number of flow runs that hold slots, by queue of a pool."""
    queues = objects.queues_of(pool)
    counted: Any = sa.select(FlowRun.work_queue_id, sa.func.count())
    held = counted.where(HOLDS, FlowRun.work_queue_id.in_(queues)).group_by(FlowRun.work_queue_id)
    return dict(await _read(call, held))


async def _first_runs(call: Call, queues: Sequence[Any], number: int) -> list[Object]:
    """Return the first flow runs that hold slots of each queue."""
    place = sa.func.row_number().over(partition_by=FlowRun.work_queue_id, order_by=OLDEST)
    holding = sa.select(FlowRun.id, place.label("place")).where(HOLDS, among(FlowRun.work_queue_id, queues)).subquery()
    first = sa.select(holding.c.id).where(holding.c.place <= number)
    return await reading.flow_runs(call, FlowRun.id.in_(first), OLDEST, number * len(queues)) if number else []


async def _count(call: Call, which: sa.ColumnElement[bool]) -> int:
    ((number,),) = await _read(call, sa.select(sa.func.count()).select_from(FlowRun).where(which))
    return int(number)


async def _read(call: Call, asked: sa.Select[Any]) -> Sequence[Any]:
    async with call.database.query(asked) as connection:
        return await fetch(connection, asked)


def _summary(run: Object, now: datetime) -> Object:
    entered = run["state"]["timestamp"]
    return {
        **{name: run[name] for name in ("id", "name", "state_type", "state_name", "start_time")},
        "state_timestamp": entered,
        "time_in_current_state": (now - entered).total_seconds(),
    }
