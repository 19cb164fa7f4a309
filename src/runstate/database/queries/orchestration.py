"""Statements of orchestration: reads and locks before a decision, writes after it. A batch needs a fixed number."""

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database.bulk import table_of
from runstate.database.dialects import among, among_given, among_selected
from runstate.database.driver import fetch
from runstate.rows import (
    Base,
    CacheEntry,
    ConcurrencyLease,
    ConcurrencyLimit,
    DeletedDate,
    Deployment,
    DeploymentSchedule,
    Flow,
    FlowRun,
    FlowRunState,
    ProposalAnswer,
    TaskRun,
    TaskRunState,
    WorkQueue,
)
from runstate.rows.base import Duration

B = TypeVar("B", bound=Base)

RUN = (
    "id",
    "name",
    "tags",
    "state_id",
    "state_type",
    "state_name",
    "state_timestamp",
    "version",
    "run_count",
    "policy",
)
KEPT = ("last_answer", "heartbeat_seconds")
TIMES = ("expected_start_time", "next_scheduled_start_time", "start_time", "end_time", "total_run_time_seconds")
CLAIM = ("claim_id", "claim_count", "expired_claims")
REFERENCES = ("flow_id", "deployment_id", "parent_task_run_id", "work_queue_id")
FLOW_RUN = (*RUN, *TIMES, *KEPT, *CLAIM, *REFERENCES, "infrastructure_pid", "cause")
TASK_RUN = (*RUN, *TIMES, *KEPT, "flow_run_id", "flow_run_run_count")
STATE = ("id", "run_id", "type", "name", "message", "timestamp", "version", "details", "persisted")
MOVED = (*RUN[3:-1], *TIMES, "last_answer")
FLOW_RUN_MOVED = ("updated", *MOVED, "policy", *CLAIM, "cause")
"""Columns of a flow run that a transition may change."""
TASK_RUN_MOVED = ("updated", *MOVED, "flow_run_run_count")
"""Columns of a task run that a transition may change."""


async def all_of(connection: AsyncConnection, row: type[B], statement: sa.Select[Any]) -> list[B]:
    """Return snapshots of the rows that a statement selects."""
    return [row.of(found) for found in (await connection.execute(statement)).mappings()]


def columns(row: type[Base], names: Iterable[str]) -> list[sa.ColumnElement[Any]]:
    """Return columns of a table by name."""
    return [table_of(row).columns[name] for name in names]


FLOW_RUN_REFS: Final = (FlowRun.flow_id, FlowRun.deployment_id, FlowRun.cause)
RUN_CONTEXT = (*FLOW_RUN_REFS, sa.exists().select_from(ConcurrencyLimit))
"""The last members of `Locked`."""


class FlowRunRefs(NamedTuple):
    """References of a flow run that the log has for its task runs, too."""

    flow_id: UUID | None
    deployment_id: UUID | None
    cause: UUID | None
    """Firing of an automation that created it or last changed its state."""


NO_FLOW_RUN: Final = FlowRunRefs(None, None, None)


class Locked(NamedTuple):
    """A locked run, which cannot change until the transaction ends, and its current state without `data`."""

    run: Any
    state: Any
    refs: FlowRunRefs
    limited: bool
    """Whether any concurrency limit may exist."""


async def lock_flow_runs(
    connection: AsyncConnection, ids: Collection[UUID], *, of_tasks: Collection[UUID] = (), shared: bool
) -> list[Locked]:
    """Lock flow runs by id, and the flow runs of task runs, in order of their ids; return them.

    A shared lock prevents changes but allows other shared locks; the other lock excludes both.
    """
    if not (ids or of_tasks):
        return []
    asked = _locking_flow_runs(by_id=bool(ids), of_tasks=bool(of_tasks), shared=shared)
    return await _locked(connection, FlowRun, FLOW_RUN, FlowRunState, asked, {"ids": ids, "related": of_tasks})


async def lock_task_runs(
    connection: AsyncConnection, ids: Collection[UUID], *, of_subflows: Collection[UUID] = ()
) -> list[Locked]:
    """Lock task runs by id, and the task runs that represent subflow runs, in order of their ids; return them."""
    if not (ids or of_subflows):
        return []
    asked = _locking_task_runs(by_id=bool(ids), of_subflows=bool(of_subflows))
    return await _locked(connection, TaskRun, TASK_RUN, TaskRunState, asked, {"ids": ids, "related": of_subflows})


# Building a statement takes longer than executing it.
@functools.cache
def _locking_flow_runs(*, by_id: bool, of_tasks: bool, shared: bool) -> sa.Select[Any]:
    related = sa.select(TaskRun.flow_run_id).where(among_given(TaskRun.id, "related"))
    wanted = _wanted(FlowRun, related, by_id=by_id, by_relation=of_tasks)
    selected = sa.select(*columns(FlowRun, FLOW_RUN), *columns(FlowRunState, STATE), *RUN_CONTEXT)
    # In order of ids, as everywhere: two transactions that lock the same runs in one order cannot deadlock.
    asked = selected.outerjoin(FlowRunState, FlowRunState.id == FlowRun.state_id).where(wanted).order_by(FlowRun.id)
    # `key_share`: rows that refer to the run can be inserted meanwhile.
    # `of`: PostgreSQL cannot lock the optional side of an outer join.
    return asked.with_for_update(read=shared, key_share=not shared, of=FlowRun)


@functools.cache
def _locking_task_runs(*, by_id: bool, of_subflows: bool) -> sa.Select[Any]:
    related = sa.select(FlowRun.parent_task_run_id).where(among_given(FlowRun.id, "related"))
    wanted = _wanted(TaskRun, related, by_id=by_id, by_relation=of_subflows)
    selected = sa.select(*columns(TaskRun, TASK_RUN), *columns(TaskRunState, STATE), *RUN_CONTEXT)
    joined = selected.select_from(
        sa.outerjoin(TaskRun, TaskRunState, TaskRunState.id == TaskRun.state_id).outerjoin(
            FlowRun, FlowRun.id == TaskRun.flow_run_id
        )
    )
    return joined.where(wanted).order_by(TaskRun.id).with_for_update(key_share=True, of=TaskRun)


def _wanted(
    run: type[FlowRun | TaskRun], related: sa.Select[Any], *, by_id: bool, by_relation: bool
) -> sa.ColumnElement[bool]:
    ways = [
        *([among_given(run.id, "ids")] if by_id else []),
        *([among_selected(run.id, related)] if by_relation else []),
    ]
    return sa.or_(*ways)


async def _locked(
    connection: AsyncConnection,
    run: type[Base],
    names: Sequence[str],
    state: type[FlowRunState | TaskRunState],
    asked: sa.Select[Any],
    given: Mapping[str, Collection[UUID]],
) -> list[Locked]:
    """Execute a locking statement; return the runs with their current states.

    PostgreSQL reads the locked row again after waiting for its lock, but joins it with states of the statement's start.
    A newer state is therefore missing and read by a second statement. Limits may have been created meanwhile, too.
    """
    found: list[Locked] = []
    parameters = {name: list(ids) for name, ids in given.items() if ids}
    for *values, flow_id, deployment_id, cause, limited in await fetch(connection, asked, parameters):
        # The columns of the state follow those of the run.
        row = run.of(zip(names, values, strict=False))
        there = values[len(names)] is not None
        its_state = state.of(zip(STATE, values[len(names) :], strict=True)) if there else None
        found.append(Locked(row, its_state, FlowRunRefs(flow_id, deployment_id, cause), bool(limited)))
    unseen = [each.run.state_id for each in found if each.state is None and each.run.state_id is not None]
    if not unseen:
        return found
    newer = {each.id: each for each in await states(connection, state, unseen)}
    return [each._replace(state=each.state or newer.get(each.run.state_id), limited=True) for each in found]


async def states(
    connection: AsyncConnection, row: type[FlowRunState] | type[TaskRunState], ids: Collection[UUID]
) -> list[Any]:
    """Return states by id, without `data`."""
    if not ids:
        return []
    return await all_of(connection, row, sa.select(*columns(row, STATE)).where(among(row.id, ids)))


async def deployments(connection: AsyncConnection, ids: Collection[UUID]) -> list[Deployment]:
    """Return deployments by id with the columns that rules need: the limit and its options."""
    if not ids:
        return []
    asked = columns(Deployment, ("id", "concurrency_limit_id", "concurrency_options"))
    return await all_of(connection, Deployment, sa.select(*asked).where(among(Deployment.id, ids)))


async def lock_limits(
    connection: AsyncConnection,
    *,
    ids: Collection[UUID] = (),
    names: Collection[str] = (),
    holders: Collection[UUID] = (),
    leases: Collection[UUID] = (),
) -> list[ConcurrencyLimit]:
    """Lock limits in order of their ids; return them.

    `names` selects limits of clients, `holders` the limits of which a run holds slots, `leases` those of leases by id.
    """
    given = {"ids": ids, "names": names, "holders": holders, "leases": leases}
    parameters = {name: list(values) for name, values in given.items() if values}
    if not parameters:
        return []
    asked = _locking_limits(frozenset(parameters))
    columns_of = table_of(ConcurrencyLimit).columns.keys()
    found = await fetch(connection, asked, parameters)
    return [ConcurrencyLimit.of(dict(zip(columns_of, each, strict=True))) for each in found]


@functools.cache
def _locking_limits(known: frozenset[str]) -> sa.Select[Any]:
    held = sa.select(ConcurrencyLease.limit_id)
    ways = {
        "ids": among_given(ConcurrencyLimit.id, "ids"),
        # A client must not reach the limit of a deployment by its name.
        "names": among_given(ConcurrencyLimit.name, "names") & ConcurrencyLimit.deployment_id.is_(None),
        "holders": among_selected(ConcurrencyLimit.id, held.where(among_given(ConcurrencyLease.run_id, "holders"))),
        "leases": among_selected(ConcurrencyLimit.id, held.where(among_given(ConcurrencyLease.id, "leases"))),
    }
    return (
        sa.select(*table_of(ConcurrencyLimit).columns)
        .where(sa.or_(*(way for name, way in ways.items() if name in known)))
        .order_by(ConcurrencyLimit.id)
        .with_for_update(key_share=True)
    )


async def leases(
    connection: AsyncConnection, *, holders: Collection[UUID] = (), ids: Collection[UUID] = ()
) -> list[ConcurrencyLease]:
    """Return the leases that these runs hold and those with these ids."""
    if not (holders or ids):
        return []
    asked = sa.select(*ConcurrencyLease.__table__.columns).where(
        among(ConcurrencyLease.run_id, holders) | among(ConcurrencyLease.id, ids)
    )
    return await all_of(connection, ConcurrencyLease, asked)


async def advance_leases(connection: AsyncConnection, advances: Sequence[tuple[UUID, datetime, timedelta]]) -> None:
    """Apply (limit id, time, span) in order: leases of the limit with a later expiry expire sooner by the span."""
    if not advances:
        return
    table = table_of(ConcurrencyLease)
    statement = (
        sa.update(table)
        .where(table.c.limit_id == sa.bindparam("on"), table.c.expires > sa.bindparam("after"))
        # Relative, because a lease may be renewed between the read and this.
        .values(expires=table.c.expires - sa.bindparam("by", type_=Duration()))
    )
    given = [{"on": limit_id, "after": after, "by": by} for limit_id, after, by in advances]
    await connection.execute(statement, given)


def digest(key: str) -> str:
    """Return the digest by which a cache key is looked up."""
    return sha256(key.encode()).hexdigest()


async def cached_states(connection: AsyncConnection, keys: Collection[str], now: datetime) -> dict[str, TaskRunState]:
    """Return the state with the newest result for each cache key, unless it has expired; lock it against deletion.

    An older result is never used: the newest one has replaced it.
    """
    if not keys:
        return {}
    other = sa.orm.aliased(CacheEntry)
    newest = (
        sa.select(other.id)
        .where(other.digest == CacheEntry.digest)
        .order_by(other.created.desc(), other.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    asked = (
        sa.select(CacheEntry.cache_key, *columns(TaskRunState, STATE))
        .join(TaskRunState, TaskRunState.id == CacheEntry.state_id)
        .where(
            # Keys can be long, so only their digests are indexed.
            among(CacheEntry.digest, [digest(key) for key in keys]),
            CacheEntry.expires.is_(None) | (CacheEntry.expires > now),
            CacheEntry.id == newest,
        )
        # Otherwise the state could be deleted before its data is copied.
        .with_for_update(read=True, key_share=True, of=TaskRunState)
    )
    found = (await connection.execute(asked)).mappings()
    return {each["cache_key"]: TaskRunState.of({name: each[name] for name in STATE}) for each in found}


async def forget_results(connection: AsyncConnection, states: sa.ColumnElement[bool]) -> None:
    """Delete the cached results of task run states that are about to be deleted, and the older ones of their keys.

    The newest result of a key decides. If it is deleted, the key has no result.
    """
    gone = sa.orm.aliased(CacheEntry)
    theirs = gone.state_id.in_(sa.select(TaskRunState.id).where(states))
    newer = sa.tuple_(gone.created, gone.id) >= sa.tuple_(CacheEntry.created, CacheEntry.id)
    keys = CacheEntry.digest.in_(sa.select(gone.digest).where(theirs))
    replaced = sa.exists().where(gone.digest == CacheEntry.digest, theirs, newer)
    await connection.execute(sa.delete(CacheEntry).where(keys, replaced))


async def answers(connection: AsyncConnection, runs: Collection[UUID], keys: Collection[str]) -> list[ProposalAnswer]:
    """Return the stored answers to proposals with these idempotency keys."""
    if not keys:
        return []
    asked = sa.select(*ProposalAnswer.__table__.columns).where(
        among(ProposalAnswer.run_id, runs), among(ProposalAnswer.key, keys)
    )
    return await all_of(connection, ProposalAnswer, asked)


Related = type[Flow | Deployment | WorkQueue | FlowRun | TaskRun]


class Existing(NamedTuple):
    """Existing rows, locked against deletion until the transaction ends."""

    ids: set[UUID]
    flow_run_refs: dict[UUID, FlowRunRefs]
    """References of the flow runs, by id."""


async def existing(connection: AsyncConnection, wanted: Mapping[Related, Collection[UUID]]) -> Existing:
    """Return the rows that exist and lock them against deletion, table by table in the given order."""
    asked = {row: sorted(ids) for row, ids in wanted.items() if ids}
    if not asked:
        return Existing(set(), {})
    given = {f"ids{place}": ids for place, ids in enumerate(asked.values())}
    found = await fetch(connection, _existing(tuple(asked)), given)
    refs = {key: FlowRunRefs(*its) for key, *its in found if its[0]}
    return Existing({key for key, *_ in found}, refs)


@functools.cache
def _existing(rows: tuple[Related, ...]) -> sa.CompoundSelect[Any]:
    lookups = []
    for place, row in enumerate(rows):
        nothing = sa.null().cast(sa.Uuid())
        refs = FLOW_RUN_REFS if row is FlowRun else (nothing, nothing, nothing)
        lookup: Any = sa.select(row.id, *(each.label(f"ref{number}") for number, each in enumerate(refs)))
        locked = lookup.where(among_given(row.id, f"ids{place}")).order_by(row.id)
        # A CTE per table, because SQLite does not allow ORDER BY in the arms of a UNION.
        lookups.append(sa.select(locked.with_for_update(read=True, key_share=True).cte(f"existing{place}")))
    return sa.union_all(*lookups)


async def revisions(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, int]:
    """Return the revisions of schedules, and lock the schedules against changes."""
    if not ids:
        return {}
    asked = sa.select(DeploymentSchedule.id, DeploymentSchedule.revision).where(
        among(DeploymentSchedule.id, sorted(ids))
    )
    found = await connection.execute(asked.order_by(DeploymentSchedule.id).with_for_update(read=True))
    return {row.id: row.revision for row in found}


async def deleted_dates(connection: AsyncConnection, ids: Collection[UUID]) -> set[tuple[UUID, datetime]]:
    """Return the dates of schedules whose runs clients deleted."""
    if not ids:
        return set()
    asked = sa.select(DeletedDate.schedule_id, DeletedDate.date).where(among(DeletedDate.schedule_id, sorted(ids)))
    return {(row.schedule_id, row.date) for row in await connection.execute(asked)}


async def missing(connection: AsyncConnection, row: Related, ids: set[UUID]) -> set[UUID]:
    """Return the ids that no row has. The other rows are locked against deletion until the transaction ends."""
    return ids - (await existing(connection, {row: ids})).ids


async def flow_runs_by_key(
    connection: AsyncConnection, keys: Collection[tuple[UUID, str]]
) -> dict[tuple[UUID, str], UUID]:
    """Return the ids of flow runs by flow id and idempotency key."""
    if not keys:
        return {}
    # These conditions also select other combinations of the values; callers ignore them.
    asked = sa.select(FlowRun.flow_id, FlowRun.idempotency_key, FlowRun.id).where(
        among(FlowRun.flow_id, sorted({flow for flow, _ in keys})),
        among(FlowRun.idempotency_key, sorted({key for _, key in keys})),
    )
    return {(flow, key): run for flow, key, run in await connection.execute(asked) if key is not None}


async def task_runs_by_key(
    connection: AsyncConnection, keys: Collection[tuple[UUID | None, str, str]]
) -> dict[tuple[UUID | None, str, str], UUID]:
    """Return the ids of task runs by flow run id, task key and dynamic key."""
    if not keys:
        return {}
    parents = sorted({parent for parent, _, _ in keys if parent})
    asked = sa.select(TaskRun.flow_run_id, TaskRun.task_key, TaskRun.dynamic_key, TaskRun.id).where(
        # NULL is in no list.
        among(TaskRun.flow_run_id, parents) | TaskRun.flow_run_id.is_(None),
        among(TaskRun.task_key, sorted({task for _, task, _ in keys})),
        among(TaskRun.dynamic_key, sorted({dynamic for _, _, dynamic in keys})),
    )
    return {(parent, task, dynamic): run for parent, task, dynamic, run in await connection.execute(asked)}


async def copy_data(connection: AsyncConnection, pairs: Sequence[tuple[UUID, UUID]]) -> None:
    """Copy `data` between task run states, without reading it: pairs of (id of the state, id of the source)."""
    if not pairs:
        return
    table = table_of(TaskRunState)
    source = table.alias()
    # In the database: a result can have a megabyte, and the server needs nothing of it.
    data = sa.select(source.c.data).where(source.c.id == sa.bindparam("source")).scalar_subquery()
    statement = sa.update(table).where(table.c.id == sa.bindparam("key")).values(data=data)
    await connection.execute(statement, [{"key": state, "source": source_id} for state, source_id in pairs])


async def stored(connection: AsyncConnection, state_ids: Collection[UUID]) -> set[UUID]:
    """Return the ids of the states that were written, flow run states and task run states."""
    asked = sa.union_all(*(sa.select(row.id).where(among(row.id, state_ids)) for row in (FlowRunState, TaskRunState)))
    return set((await connection.execute(asked)).scalars())
