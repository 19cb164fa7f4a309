"""What must hold in every database, asked the other way round: the ids of rows for which it does not."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database import Database
from runstate.database.dialects import seconds_between
from runstate.documents.states import FINAL_TYPES, StateType
from runstate.rows import (
    ConcurrencyLease,
    ConcurrencyLimit,
    FlowRun,
    FlowRunState,
    Installation,
    LogCheckpoint,
    TaskRun,
    TaskRunState,
    Transition,
)

SLACK: Final = timedelta(minutes=2)
"""By how much the clocks of servers may differ, and for how long a transaction may last."""
SLACK_OF_DECAY_SECONDS: Final = 1.0

Run = type[FlowRun | TaskRun]
State = type[FlowRunState | TaskRunState]
Ids = sa.Select[Any]
CARRIED: Final = (("state_id", "id"), ("state_type", "type"), ("state_name", "name"), ("state_timestamp", "timestamp"))
LOGGED: Final = (("state_id", "id"), ("state_type", "type"), ("state_name", "name"), ("occurred", "timestamp"))


@asynccontextmanager
async def snapshot(database: Database) -> AsyncIterator[AsyncConnection]:
    """A connection that sees the whole database as it is now, for as long as it takes."""
    async with database.reader.connect() as connection:
        if not database.is_sqlite:
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            await connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        await connection.execution_options(patient=True)
        yield connection


async def first(connection: AsyncConnection, ids: Ids, at_most: int) -> tuple[int, list[str]]:
    """How many ids a question finds, and the first of them."""
    found = ids.distinct().subquery()
    (column,) = found.columns
    rows = await connection.execute(sa.select(column, sa.func.count().over()).order_by(column).limit(at_most))
    pairs = [(count, str(each)) for each, count in rows]
    return (pairs[0][0] if pairs else 0), [each for _, each in pairs]


def not_in_last_state(run: Run, state: State) -> Ids:
    """Runs whose columns do not say what the state of their version says."""
    differs = [getattr(run, ours).is_distinct_from(getattr(state, theirs)) for ours, theirs in CARRIED]
    its_state = sa.and_(state.run_id == run.id, state.version == run.version)
    return sa.select(run.id).outerjoin_from(run, state, its_state).where(sa.or_(*differs))


def miscounted_states(run: Run, state: State) -> Ids:
    """Runs whose version is not that of their newest state, or whose states are numbered from below 1."""
    numbers = sa.select(
        state.run_id, sa.func.min(state.version).label("first"), sa.func.max(state.version).label("last")
    )
    held = numbers.group_by(state.run_id).subquery()
    return (
        sa.select(run.id)
        .outerjoin_from(run, held, held.c.run_id == run.id)
        .where((sa.func.coalesce(held.c.last, 0) != run.version) | (held.c.first < 1))
    )


def going_back_in_time(state: State) -> Ids:
    """Runs that entered a state before the one before it."""
    before = sa.func.lag(state.timestamp).over(partition_by=state.run_id, order_by=state.version)
    pairs = sa.select(state.run_id, state.timestamp, before.label("before")).subquery()
    return sa.select(pairs.c.run_id).where(pairs.c.timestamp < pairs.c.before)


def ended_otherwise(run: Run) -> Ids:
    """Runs that have an end time without having ended, or have ended without one."""
    has_ended = sa.func.coalesce(run.state_type.in_(FINAL_TYPES), sa.false())
    return sa.select(run.id).where(has_ended != run.end_time.is_not(None))


def negative_run_times(run: Run) -> Ids:
    """Runs that spent less than no time in RUNNING."""
    return sa.select(run.id).where(run.total_run_time_seconds < 0)


async def logged_since(connection: AsyncConnection) -> datetime | None:
    """From when on every state has its entry in the log; null: there is no telling."""
    if await connection.scalar(sa.select(Installation.floor)) is None:
        return await connection.scalar(sa.select(sa.func.min(Transition.occurred)))
    swept = await connection.scalar(sa.select(sa.func.min(LogCheckpoint.at)))
    return swept + SLACK if swept else None


def not_logged(state: State, since: datetime | None) -> Ids:
    """States that were entered since a time without an entry in the log."""
    entry = sa.exists().where(Transition.run_id == state.run_id, Transition.version == state.version)
    return sa.select(state.id).where(state.timestamp >= since if since else sa.false(), ~entry)


def logged_otherwise(state: State) -> Ids:
    """States of which the log says something else."""
    differs = [getattr(Transition, ours).is_distinct_from(getattr(state, theirs)) for ours, theirs in LOGGED]
    entry = sa.and_(Transition.run_id == state.run_id, Transition.version == state.version)
    return sa.select(state.id).join_from(state, Transition, entry).where(sa.or_(*differs))


def logged_ahead(run: Run) -> Ids:
    """Runs of which the log knows a later version."""
    return (
        sa.select(run.id)
        .join_from(run, Transition, Transition.run_id == run.id)
        .where(Transition.version > run.version)
    )


def miscounted_slots() -> Ids:
    """Limits without decay that count other slots than their leases hold."""
    held = sa.select(ConcurrencyLease.limit_id, sa.func.sum(ConcurrencyLease.slots).label("slots"))
    sums = held.group_by(ConcurrencyLease.limit_id).subquery()
    return (
        sa.select(ConcurrencyLimit.id)
        .outerjoin_from(ConcurrencyLimit, sums, sums.c.limit_id == ConcurrencyLimit.id)
        .where(ConcurrencyLimit.slot_decay_per_second == 0)
        .where(ConcurrencyLimit.occupied != sa.func.coalesce(sums.c.slots, 0))
    )


def drained_otherwise(now: datetime) -> Ids:
    """Limits with decay that will be empty at another time than the last of their leases; what is past is the same."""
    latest = sa.select(ConcurrencyLease.limit_id, sa.func.max(ConcurrencyLease.expires).label("expires"))
    lasts = latest.group_by(ConcurrencyLease.limit_id).subquery()
    apart = seconds_between(_not_before(now, ConcurrencyLimit.drained), _not_before(now, lasts.c.expires))
    return (
        sa.select(ConcurrencyLimit.id)
        .outerjoin_from(ConcurrencyLimit, lasts, lasts.c.limit_id == ConcurrencyLimit.id)
        .where(ConcurrencyLimit.slot_decay_per_second > 0, sa.func.abs(apart) > SLACK_OF_DECAY_SECONDS)
    )


def _not_before(now: datetime, instant: Any) -> sa.ColumnElement[Any]:
    return sa.case((instant > now, instant), else_=sa.literal(now, ConcurrencyLimit.drained.type))


def of_nobody() -> Ids:
    """Leases that never expire, of runs that do not exist."""
    runs = [sa.exists().where(run.id == ConcurrencyLease.run_id) for run in (FlowRun, TaskRun)]
    return sa.select(ConcurrencyLease.id).where(
        ConcurrencyLease.run_id.is_not(None), ConcurrencyLease.expires.is_(None), ~sa.or_(*runs)
    )


def not_given_back(run: Run, holding: Collection[StateType]) -> Ids:
    """Leases that came with a state and are held by runs that are no longer in a type that holds slots."""
    holds = sa.func.coalesce(run.state_type.in_(holding), sa.false())
    held = sa.select(ConcurrencyLease.id).join_from(ConcurrencyLease, run, run.id == ConcurrencyLease.run_id)
    return held.where(ConcurrencyLease.automatic, ~holds)


def taken_twice() -> Ids:
    """Runs that came to two leases of one limit by entering states."""
    return (
        sa.select(ConcurrencyLease.run_id)
        .where(ConcurrencyLease.automatic, ConcurrencyLease.run_id.is_not(None))
        .group_by(ConcurrencyLease.run_id, ConcurrencyLease.limit_id)
        .having(sa.func.count() > 1)
    )
