"""Queries of services: runs that are due for a state, and expired leases. Read in pages."""

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

Query = sa.Select[*tuple[Any, ...]]
Found = sa.Row[*tuple[Any, ...]]
Order = tuple[InstrumentedAttribute[Any], ...]


@dataclass(frozen=True, slots=True)
class DueQuery:
    """A query, and the columns by which its pages are ordered.

    Queries for few of many runs are ordered by a time without an index. With an index, a planner that expects many rows
    would scan the whole table in index order to find a page. Conditions on owners use EXISTS, so that even a database
    without statistics reads the few unfinished runs first.
    """

    query: Query
    order: Order


async def pages(database: Database, due: DueQuery) -> AsyncIterator[Sequence[Found]]:
    """Yield the rows in pages. Each page starts after the last row of the previous one, even if rows stay due."""
    page = await _page(database, due.query, due.order)
    # All pages are read, so that no run is left out.
    while page:
        yield page
        rest = due.query.where(_after(due.order, page[-1]))
        # A short page is the last one, so no further statement is needed.
        page = await _page(database, rest, due.order) if len(page) == PAGE else ()


async def _page(database: Database, query: Query, order: Order) -> Sequence[Found]:
    # No connection is held while the caller works on a page.
    async with database.read() as connection:
        return (await connection.execute(query.order_by(*order).limit(PAGE))).all()


def _after(order: Order, last: Found) -> sa.ColumnElement[bool]:
    values = (sa.literal(getattr(last, column.key), column.type) for column in order)
    return sa.tuple_(*order) > sa.tuple_(*values)


def late_flow_runs(before: datetime) -> DueQuery:
    """Return the query for flow runs that are Scheduled for a time up to *before*."""
    query = sa.select(FlowRun.id, FlowRun.version, FlowRun.next_scheduled_start_time).where(
        FlowRun.state_type == StateType.SCHEDULED,
        FlowRun.state_name == "Scheduled",  # not Late, AwaitingRetry, Resuming …
        FlowRun.next_scheduled_start_time <= before,
    )
    return DueQuery(query, (FlowRun.next_scheduled_start_time, FlowRun.id))


def expired_pauses(now: datetime) -> DueQuery:
    """Return the query for flow runs whose pause has expired."""
    # The text can have any time zone, so it is not compared as text.
    until = sa.type_coerce(FlowRunState.details, JSON)["pause_timeout"].as_string()
    query = (
        sa.select(FlowRun.id, FlowRun.version, FlowRun.state_timestamp)
        .join(FlowRunState, FlowRunState.id == FlowRun.state_id)
        .where(FlowRun.state_type == StateType.PAUSED, instant_of(until) < now)
    )
    return DueQuery(query, (FlowRun.state_timestamp, FlowRun.id))


def stuck_cancellations(before: datetime) -> DueQuery:
    """Return the query for flow runs that became CANCELLING at *before* or earlier."""
    query = sa.select(FlowRun.id, FlowRun.version, FlowRun.state_timestamp).where(
        FlowRun.state_type == StateType.CANCELLING, FlowRun.state_timestamp <= before
    )
    return DueQuery(query, (FlowRun.state_timestamp, FlowRun.id))


def task_runs_left_over(since: datetime) -> DueQuery:
    """Return the query for unfinished task runs of flow runs that became CANCELLED at *since* or later."""
    flow_run = FlowRun.id == TaskRun.flow_run_id
    is_cancelled = FlowRun.state_type == StateType.CANCELLED
    return _unfinished_task_runs(sa.exists().where(flow_run, is_cancelled, FlowRun.state_timestamp >= since))


def orphaned_task_runs(since: datetime, until: datetime) -> DueQuery:
    """Return the query for unfinished task runs of flow runs that CRASHED or FAILED in a period.

    Background task runs are left out: other processes execute them and continue without the flow run.
    """
    flow_run = FlowRun.id == TaskRun.flow_run_id
    is_deferred = sa.type_coerce(TaskRunState.details, JSON)["deferred"].as_boolean()
    in_background = sa.exists().where(TaskRunState.run_id == TaskRun.id, is_deferred)
    return _unfinished_task_runs(sa.exists().where(flow_run, *_lost(FlowRun, since, until)), ~in_background)


def _unfinished_task_runs(*conditions: sa.ColumnElement[bool]) -> DueQuery:
    """Return the query for unfinished task runs.

    Task runs that represent an unfinished subflow run are left out: they end with it.
    """
    subflow = aliased(FlowRun)
    follows = sa.exists().where(subflow.parent_task_run_id == TaskRun.id, subflow.state_type.in_(UNFINISHED))
    query = sa.select(TaskRun.id, TaskRun.version, TaskRun.state_timestamp).where(
        TaskRun.state_type.in_(UNFINISHED), *conditions, ~follows
    )
    return DueQuery(query, (TaskRun.state_timestamp, TaskRun.id))


def _lost(flow_run: Any, since: datetime, until: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions for flow runs that CRASHED or FAILED in a period, possibly with unfinished runs."""
    return flow_run.state_type.in_(LOST), flow_run.state_timestamp.between(since, until)


def subflow_runs_left_over() -> DueQuery:
    """Return the query for unfinished subflow runs of CANCELLED flow runs.

    Those of a deployment that are CANCELLING are left out: their own infrastructure stops them.
    """
    parent = aliased(FlowRun)
    is_stopping = sa.and_(FlowRun.state_type == StateType.CANCELLING, FlowRun.deployment_id.is_not(None))
    query = (
        sa.select(FlowRun.id, FlowRun.version, FlowRun.deployment_id, FlowRun.state_timestamp)
        .join(TaskRun, TaskRun.id == FlowRun.parent_task_run_id)
        .join(parent, parent.id == TaskRun.flow_run_id)
        .where(parent.state_type == StateType.CANCELLED, FlowRun.state_type.in_(UNFINISHED), ~is_stopping)
    )
    return DueQuery(query, (FlowRun.state_timestamp, FlowRun.id))


def orphaned_subflow_runs(since: datetime, until: datetime) -> DueQuery:
    """Return the query for unfinished subflow runs of flow runs that CRASHED or FAILED in a period.

    Subflow runs of a deployment are left out: they have their own infrastructure and continue.
    """
    parent = aliased(FlowRun)
    query = (
        sa.select(FlowRun.id, FlowRun.version, FlowRun.state_timestamp)
        .join(TaskRun, TaskRun.id == FlowRun.parent_task_run_id)
        .join(parent, parent.id == TaskRun.flow_run_id)
        .where(FlowRun.state_type.in_(UNFINISHED), FlowRun.deployment_id.is_(None), *_lost(parent, since, until))
    )
    return DueQuery(query, (FlowRun.state_timestamp, FlowRun.id))


def limits_with_expired_leases(now: datetime) -> DueQuery:
    """Return the query for limits with expired leases."""
    expired = sa.select(ConcurrencyLease.limit_id).where(ConcurrencyLease.expires <= now)
    return DueQuery(sa.select(ConcurrencyLimit.id).where(ConcurrencyLimit.id.in_(expired)), (ConcurrencyLimit.id,))


async def expired_leases(
    connection: AsyncConnection, limit: ConcurrencyLimit, now: datetime, at_most: int
) -> list[ConcurrencyLease]:
    """Return expired leases of a limit. The caller must hold the lock of the limit, so that they cannot change."""
    query = (
        sa.select(*table_of(ConcurrencyLease).columns)
        .where(ConcurrencyLease.limit_id == limit.id, ConcurrencyLease.expires <= now)
        .order_by(ConcurrencyLease.expires, ConcurrencyLease.id)
        .limit(at_most)
    )
    return await all_of(connection, ConcurrencyLease, query)
