"""Tallies: numbers of runs by flow, deployment and state, stored as changes that queries add up.

A batch appends its changes, a service replaces many changes by their sum, and a query adds all of them up. No
transaction waits for another. Tallies of a deleted deployment count as tallies without a deployment.
"""

import functools
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database.bulk import TableWrite, inserted, table_of
from runstate.database.dialects import among
from runstate.documents.states import RunKind, StateType
from runstate.rows import CountedName, Deployment, FlowRun, RunTally, TaskRun

MOST_NAMES: Final = 100
"""Maximum number of custom state names with their own tally, per state type; all further names share one tally."""
OTHER_NAMES: Final = "…"
"""Name of the shared tally."""
NAMES: Final = frozenset(
    {
        "Scheduled",
        "Late",
        "AwaitingRetry",
        "AwaitingConcurrencySlot",
        "Resuming",
        "Pending",
        "Submitting",
        "InfrastructurePending",
        "NotReady",
        "Running",
        "Retrying",
        "Rerunning",
        "Paused",
        "Suspended",
        "Cancelling",
        "Cancelled",
        "Completed",
        "Cached",
        "RolledBack",
        "Failed",
        "TimedOut",
        "Crashed",
    }
)
"""State names of the server and its usual clients, which always have their own tally."""
LOCK: Final = 0x74616C6C696573
"""Key of the advisory lock under which custom names are chosen."""
KEYS: Final = ("run_kind", "flow_id", "deployment_id", "state_type", "state_name")


class TallyKey(NamedTuple):
    """The columns that a tally groups by."""

    run_kind: RunKind
    flow_id: UUID | None
    deployment_id: UUID | None
    state_type: StateType | None
    state_name: str | None


async def added(connection: AsyncConnection, changes: Mapping[TallyKey, int]) -> TableWrite:
    """Return the write that appends changes. Custom state names are looked up first."""
    # Clients choose names freely; without a bound, a name with a number in it would make a tally for each run.
    own = {(each.state_type, each.state_name) for each in changes if each.state_type and each.state_name not in NAMES}
    known = await _known(connection, own) if own else set()
    summed: Counter[TallyKey] = Counter()
    for counted, number in changes.items():
        is_other = (counted.state_type, counted.state_name) in own - known
        summed[counted._replace(state_name=OTHER_NAMES) if is_other else counted] += number
    # A run that enters and leaves a state in the same batch changes nothing.
    return inserted(RunTally, [{**counted._asdict(), "number": number} for counted, number in summed.items() if number])


async def _known(connection: AsyncConnection, names: Collection[tuple[Any, Any]]) -> set[tuple[Any, Any]]:
    """Return the state types and names that have their own tally. Add the given names as long as there is room.

    Names are added by one transaction at a time and never removed. A name without room therefore never gets a tally,
    and its counts do not move between tallies.
    """
    # Read without the lock first: usually all names have a tally already.
    known = await _chosen(connection, {kind for kind, _ in names})
    if not _with_room(known, names):
        return known
    if connection.dialect.name == "postgresql":
        # An advisory lock, because rows that do not exist yet cannot be locked. SQLite has one writer anyway.
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    # Read again under the lock: another transaction may have added names.
    known = await _chosen(connection, {kind for kind, _ in names})
    fresh = _with_room(known, names)
    if fresh:
        rows = [{"state_type": kind, "name": name} for kind, name in fresh]
        await connection.execute(sa.insert(table_of(CountedName)), rows)
    return known | set(fresh)


async def _chosen(connection: AsyncConnection, kinds: Collection[Any]) -> set[tuple[Any, Any]]:
    asked = sa.select(CountedName.state_type, CountedName.name).where(CountedName.state_type.in_(kinds))
    return {(kind, name) for kind, name in await connection.execute(asked)}


def _with_room(known: Collection[tuple[Any, Any]], names: Collection[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return the unknown names for which there is room."""
    taken = Counter(kind for kind, _ in known)
    fresh = []
    # Sorted, so that it does not depend on the order of a set which names get the last places.
    for kind, name in sorted(set(names) - set(known), key=lambda each: (each[0].value, each[1])):
        if taken[kind] < MOST_NAMES:
            taken[kind] += 1
            fresh.append((kind, name))
    return fresh


async def subtract(
    connection: AsyncConnection, *, flow_runs: Collection[UUID] = (), task_runs: Collection[UUID] = ()
) -> None:
    """Append the changes for runs that are about to be deleted. They must be locked."""
    for run, ids in ((FlowRun, flow_runs), (TaskRun, task_runs)):
        if ids:
            await _insert(connection, present(run, among(run.id, ids)), -1)


def present(run: type[FlowRun | TaskRun], where: sa.ColumnElement[bool] | None = None) -> sa.Select[Any]:
    """Return the query that counts existing runs by the columns of the tallies."""
    kind = RunKind.FLOW_RUN if run is FlowRun else RunKind.TASK_RUN
    is_named = run.state_name.in_(sorted(NAMES)) | CountedName.name.is_not(None) | run.state_name.is_(None)
    name = sa.case((is_named, run.state_name), else_=OTHER_NAMES)
    keys = [
        sa.literal(kind, RunTally.run_kind.type).label("run_kind"),
        FlowRun.flow_id.label("flow_id"),
        FlowRun.deployment_id.label("deployment_id"),
        run.state_type.label("state_type"),
        name.label("state_name"),
    ]
    source: Any = sa.join(TaskRun, FlowRun, FlowRun.id == TaskRun.flow_run_id, isouter=True)
    its_name = (CountedName.state_type == run.state_type) & (CountedName.name == run.state_name)
    source = sa.outerjoin(FlowRun if run is FlowRun else source, CountedName, its_name)
    counted = sa.select(*keys, sa.func.count().label("number")).select_from(source)
    return counted.where(sa.true() if where is None else where).group_by(*keys[1:4], run.state_name, CountedName.name)


async def _insert(connection: AsyncConnection, counted: sa.Select[Any], sign: int) -> None:
    found = counted.subquery()
    asked = sa.select(*(found.c[name] for name in KEYS), found.c.number * sign)
    await connection.execute(sa.insert(table_of(RunTally)).from_select([*KEYS, "number"], asked))


async def recount(connection: AsyncConnection) -> None:
    """Replace all tallies by a count of all runs, after rows were loaded in bulk."""
    await connection.execute(sa.delete(RunTally))
    for run in (FlowRun, TaskRun):
        is_named = run.state_type.is_not(None) & run.state_name.is_not(None)
        asked = sa.select(run.state_type, run.state_name).where(is_named).distinct()
        names = {(kind, name) for kind, name in await connection.execute(asked) if name not in NAMES}
        if names:
            await _known(connection, names)
        await _insert(connection, present(run), 1)


@functools.cache
def tallied(kind: RunKind) -> sa.FromClause:
    """Return the tallies of one kind of run as a subquery, without the ids of deleted deployments."""
    return (
        sa.select(
            RunTally.seq,
            RunTally.flow_id,
            Deployment.id.label("deployment_id"),
            RunTally.state_type,
            RunTally.state_name,
            RunTally.number,
        )
        .outerjoin(Deployment, Deployment.id == RunTally.deployment_id)
        .where(RunTally.run_kind == kind)
        .subquery("tallied")
    )


async def compact(connection: AsyncConnection) -> int:
    """Replace changes with the same columns by their sum, and return the number of rows saved.

    Changes that another transaction has locked are skipped, so several servers can compact at the same time.
    """
    several = sa.select(RunTally.seq, sa.func.count().over(partition_by=_effective()).label("times"))
    several_of = several.outerjoin(Deployment, Deployment.id == RunTally.deployment_id).subquery()
    # A change that has no other with its columns cannot be merged, and is not written again.
    wanted = sa.select(several_of.c.seq).where(several_of.c.times > 1)
    locked = sa.select(table_of(RunTally)).where(RunTally.seq.in_(wanted)).with_for_update(skip_locked=True)
    changes = (await connection.execute(locked)).mappings().all()
    if not changes:
        return 0
    asked = sa.select(Deployment.id).where(among(Deployment.id, {each["deployment_id"] for each in changes} - {None}))
    there = set((await connection.execute(asked)).scalars())
    # Tallies of deleted deployments are merged with those without a deployment, as queries read them.
    sums: Counter[TallyKey] = Counter()
    for each in changes:
        deployment = each["deployment_id"] if each["deployment_id"] in there else None
        sums[TallyKey(**{**{key: each[key] for key in KEYS}, "deployment_id": deployment})] += each["number"]
    # Only the rows that were read: others may have been appended since.
    await connection.execute(sa.delete(RunTally).where(among(RunTally.seq, [each["seq"] for each in changes])))
    rows = [{**counted._asdict(), "number": number} for counted, number in sums.items() if number]
    if rows:
        await connection.execute(sa.insert(table_of(RunTally)), rows)
    return len(changes) - len(rows)


def _effective() -> list[sa.ColumnElement[Any]]:
    return [RunTally.run_kind, RunTally.flow_id, Deployment.id, RunTally.state_type, RunTally.state_name]  # type: ignore[list-item]


def miscounted(run: type[FlowRun | TaskRun]) -> sa.Select[Any]:
    """Return the query for state types and names whose tallies differ from the number of runs."""
    kind = RunKind.FLOW_RUN if run is FlowRun else RunKind.TASK_RUN
    counted, there = tallied(kind), present(run).subquery()
    names = KEYS[1:]
    both = sa.union_all(
        sa.select(*(counted.c[name] for name in names), counted.c.number),
        sa.select(*(there.c[name] for name in names), -there.c.number),
    ).subquery()
    called = sa.func.coalesce(sa.cast(both.c.state_type, sa.Text) + sa.literal(" ") + both.c.state_name, "no state")
    return (
        sa.select(called.label("called"))
        .group_by(*(both.c[name] for name in names))
        .having(sa.func.sum(both.c.number) != 0)
    )
