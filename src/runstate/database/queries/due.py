"""What services look for: runs that are due for a state, leases and rows whose time is over. In pages."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import InstrumentedAttribute, aliased

from runstate.database import Database
from runstate.database.bulk import table_of
from runstate.database.dialects import instant_of
from runstate.database.queries.orchestration import all_of
from runstate.documents.states import FINAL_TYPES, StateType
from runstate.rows import (
    ConcurrencyLease,
    ConcurrencyLimit,
    FlowRun,
    FlowRunState,
    TaskRun,
    TaskRunState,
)
from runstate.rows.base import JSON

PAGE: Final = 200
UNFINISHED: Final = frozenset(StateType) - FINAL_TYPES
LOST: Final = frozenset({StateType.CRASHED, StateType.FAILED})

Asked = sa.Select[*tuple[Any, ...]]
Found = sa.Row[*tuple[Any, ...]]
Order = tuple[InstrumentedAttribute[Any], ...]


@dataclass(frozen=True, slots=True)
class DueQuery:
    """A question, and the columns of the answer in whose order it is paged through.

    Where few of many runs are looked for, they are sorted by a time that has no index. With one, a database that takes
    the answer to be long walks through the whole table to find a page of it in order. And what unfinished runs belong
    to is asked with EXISTS: the few of them are read first, even by a database that knows nothing of their number.
    """

    asked: Asked
    order: Order


async def pages(database: Database, due: DueQuery) -> AsyncIterator[Sequence[Found]]:
    """The answer in pages. What stays due although it was seen does not keep the next page from being seen."""
    page = await _page(database, due.asked, due.order)
    while page:
        yield page
        rest = due.asked.where(_after(due.order, page[-1]))
        page = await _page(database, rest, due.order) if len(page) == PAGE else ()


async def _page(database: Database, asked: Asked, order: Order) -> Sequence[Found]:
    async with database.read() as connection:
        return (await connection.execute(asked.order_by(*order).limit(PAGE))).all()


def _after(order: Order, last: Found) -> sa.ColumnElement[bool]:
    values = (sa.literal(getattr(last, column.key), column.type) for column in order)
    return sa.tuple_(*order) > sa.tuple_(*values)


def late_flow_runs(before: datetime) -> DueQuery:
    """Flow runs that wait to be started for the first time and were due by then."""
    asked = sa.select(FlowRun.id, FlowRun.version, FlowRun.next_scheduled_start_time).where(
        FlowRun.state_type == StateType.SCHEDULED,
        FlowRun.state_name == "Scheduled",
        FlowRun.next_scheduled_start_time <= before,
    )
    return DueQuery(asked, (FlowRun.next_scheduled_start_time, FlowRun.id))


def expired_pauses(now: datetime) -> DueQuery:
    """Flow runs whose pause has ended by itself."""
    until = sa.type_coerce(FlowRunState.details, JSON)["pause_timeout"].as_string()
    asked = (
        sa.select(FlowRun.id, FlowRun.version, FlowRun.state_timestamp)
        .join(FlowRunState, FlowRunState.id == FlowRun.state_id)
        .where(FlowRun.state_type == StateType.PAUSED, instant_of(until) < now)
    )
    return DueQuery(asked, (FlowRun.state_timestamp, FlowRun.id))


def stuck_cancellations(before: datetime) -> DueQuery:
    """Flow runs that have been CANCELLING since then or longer."""
    asked = sa.select(FlowRun.id, FlowRun.version, FlowRun.state_timestamp).where(
        FlowRun.state_type == StateType.CANCELLING, FlowRun.state_timestamp <= before
    )
    return DueQuery(asked, (FlowRun.state_timestamp, FlowRun.id))


def task_runs_left_over(since: datetime) -> DueQuery:
    """Return the unfinished task runs of flow runs CANCELLED since then."""
    flow_run = FlowRun.id == TaskRun.flow_run_id
    is_cancelled = FlowRun.state_type == StateType.CANCELLED
    return _unfinished_task_runs(sa.exists().where(flow_run, is_cancelled, FlowRun.state_timestamp >= since))


def orphaned_task_runs(since: datetime, until: datetime) -> DueQuery:
    """Return the unfinished task runs of flow runs that CRASHED or FAILED in that time.

    Task runs in the background are executed by other processes, which go on without the flow run.
    """
    flow_run = FlowRun.id == TaskRun.flow_run_id
    is_deferred = sa.type_coerce(TaskRunState.details, JSON)["deferred"].as_boolean()
    in_background = sa.exists().where(TaskRunState.run_id == TaskRun.id, is_deferred)
    return _unfinished_task_runs(sa.exists().where(flow_run, *_lost(FlowRun, since, until)), ~in_background)


def _unfinished_task_runs(*conditions: sa.ColumnElement[bool]) -> DueQuery:
    """Leave out task runs that stand for an unfinished subflow run: they end when that does."""
    subflow = aliased(FlowRun)
    follows = sa.exists().where(subflow.parent_task_run_id == TaskRun.id, subflow.state_type.in_(UNFINISHED))
    asked = sa.select(TaskRun.id, TaskRun.version, TaskRun.state_timestamp).where(
        TaskRun.state_type.in_(UNFINISHED), *conditions, ~follows
    )
    return DueQuery(asked, (TaskRun.state_timestamp, TaskRun.id))


def _lost(flow_run: Any, since: datetime, until: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    """Whether a flow run ended in that time without ending what it had started."""
    return flow_run.state_type.in_(LOST), flow_run.state_timestamp.between(since, until)


def subflow_runs_left_over() -> DueQuery:
    """Unfinished subflow runs of CANCELLED flow runs, but those of deployments only until they are CANCELLING."""
    parent = aliased(FlowRun)
    is_asked_to = sa.and_(FlowRun.state_type == StateType.CANCELLING, FlowRun.deployment_id.is_not(None))
    asked = (
        sa.select(FlowRun.id, FlowRun.version, FlowRun.deployment_id, FlowRun.state_timestamp)
        .join(TaskRun, TaskRun.id == FlowRun.parent_task_run_id)
        .join(parent, parent.id == TaskRun.flow_run_id)
        .where(parent.state_type == StateType.CANCELLED, FlowRun.state_type.in_(UNFINISHED), ~is_asked_to)
    )
    return DueQuery(asked, (FlowRun.state_timestamp, FlowRun.id))


def orphaned_subflow_runs(since: datetime, until: datetime) -> DueQuery:
    """Return the unfinished subflow runs of flow runs that CRASHED or FAILED in that time.

    A subflow run of a deployment has infrastructure of its own, and goes on.
    """
    parent = aliased(FlowRun)
    asked = (
        sa.select(FlowRun.id, FlowRun.version, FlowRun.state_timestamp)
        .join(TaskRun, TaskRun.id == FlowRun.parent_task_run_id)
        .join(parent, parent.id == TaskRun.flow_run_id)
        .where(FlowRun.state_type.in_(UNFINISHED), FlowRun.deployment_id.is_(None), *_lost(parent, since, until))
    )
    return DueQuery(asked, (FlowRun.state_timestamp, FlowRun.id))


def limits_with_expired_leases(now: datetime) -> DueQuery:
    """Limits some of whose leases have expired."""
    expired = sa.select(ConcurrencyLease.limit_id).where(ConcurrencyLease.expires <= now)
    return DueQuery(sa.select(ConcurrencyLimit.id).where(ConcurrencyLimit.id.in_(expired)), (ConcurrencyLimit.id,))


async def expired_leases(
    connection: AsyncConnection, limit: ConcurrencyLimit, now: datetime, at_most: int
) -> list[ConcurrencyLease]:
    """Leases of a limit that have expired. With the lock of the limit, they stay as they are."""
    asked = (
        sa.select(*table_of(ConcurrencyLease).columns)
        .where(ConcurrencyLease.limit_id == limit.id, ConcurrencyLease.expires <= now)
        .order_by(ConcurrencyLease.expires, ConcurrencyLease.id)
        .limit(at_most)
    )
    return await all_of(connection, ConcurrencyLease, asked)
