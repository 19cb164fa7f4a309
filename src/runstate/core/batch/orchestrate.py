"""The transaction of a batch: load and lock, decide, write, notify. No other code writes states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.batch.artifacts import write_artifacts
from runstate.core.batch.creating import create, mirrors
from runstate.core.batch.decide import Environment, decide_request, references, state_columns
from runstate.core.batch.recording import unheld
from runstate.core.batch.requests import CreateRun, Outcome, ProposeState, RecordState, Request
from runstate.core.batch.unit_of_work import Entered, UnitOfWork
from runstate.core.rules.concurrency import HOLDING
from runstate.core.states import State, is_unpersisted
from runstate.database import Database, Transaction, bulk
from runstate.database.bulk import TableWrite, deleted, deleted_by_key, inserted, replaced, updated
from runstate.database.queries import orchestration as sql
from runstate.database.queries import tallies
from runstate.database.queries.tallies import TallyKey
from runstate.documents.states import RunKind, StateType
from runstate.feed import SLOTS, TRANSITIONS, WORK
from runstate.rows import (
    CacheEntry,
    ConcurrencyLease,
    ConcurrencyLimit,
    ConcurrencyWaiter,
    FlowRun,
    FlowRunInput,
    FlowRunState,
    ProposalAnswer,
    RunClaim,
    TaskRun,
    TaskRunState,
    Transition,
)

WAITER = ("run_id", "limit_id")
TAKES_DEPLOYMENT_SLOT = frozenset({StateType.PENDING, StateType.RUNNING, StateType.SCHEDULED})
"""Proposed state types for which rules look at the limit of the deployment."""


@dataclass(slots=True)
class Attempt:
    """One attempt to execute a batch. It is filled in just before COMMIT, whose reply may be lost."""

    outcomes: list[Outcome] | None = None
    minted: set[UUID] = field(default_factory=set)
    """Ids of the states that the attempt writes."""
    heard: dict[UUID, int] = field(default_factory=dict)
    """Versions of the monitored runs whose clients made the requests, by id of the run."""
    is_committed: bool = False
    """Whether the attempt is known to be committed."""
    is_undone: bool = False
    """Whether the attempt is known to be rolled back."""

    @property
    def is_doubtful(self) -> bool:
        """Whether the attempt may or may not have been committed."""
        return bool(self.minted) and not (self.is_committed or self.is_undone)

    def prepare(self, minted: set[UUID], outcomes: list[Outcome]) -> None:
        """Record the states and outcomes just before COMMIT."""
        self.minted, self.outcomes = minted, outcomes

    def commit(self) -> None:
        """Record that the attempt was committed."""
        self.is_committed = True


async def orchestrate(
    database: Database,
    requests: Sequence[Request],
    environment: Environment,
    *,
    attempt: Attempt | None = None,
    earlier: Sequence[Attempt] = (),
) -> list[Outcome]:
    """Execute requests in order in one transaction, and return their outcomes.

    If one of the *earlier* attempts was committed after all, its outcomes are returned and nothing is written.
    """
    async with database.write() as transaction:
        unit = await load(transaction.connection, requests, environment.now)
        # Under the locks of the lost attempt: it is over by now, and its states are visible if it was committed.
        committed = await _committed(transaction.connection, earlier)
        if committed is not None:
            transaction.notify(TRANSITIONS.channel)  # the lost attempt notified nobody
            transaction.notify(SLOTS)
            transaction.notify(WORK)
            return committed
        outcomes = [decide_request(request, unit, environment) for request in requests]
        await write(transaction.connection, unit, environment.now)
        if attempt is not None:
            # Reported states have ids of clients, which another server may have written; they can be repeated.
            minted = {each.state.id for each in unit.transitions if each.state.id} - unit.recorded
            # Not earlier: an attempt that fails before COMMIT has written nothing for certain.
            transaction.before_commit(partial(attempt.prepare, minted, outcomes))
            transaction.after_commit(attempt.commit)
            attempt.heard = unit.heard
        notify(transaction, unit)
    return outcomes


def notify(transaction: Transaction, unit: UnitOfWork) -> None:
    """Notify subscribers of the changes of a unit after the commit."""
    if unit.transitions:
        transaction.notify(TRANSITIONS.channel)
    if unit.has_released:
        transaction.notify(SLOTS)
    if any(_makes_work(each) for each in unit.transitions):
        transaction.notify(WORK)


def _makes_work(entered: Entered) -> bool:
    """Return whether workers may be able to claim more runs: one is scheduled, or a slot is freed."""
    if not isinstance(entered.run, FlowRun) or entered.run.work_queue_id is None:
        return False
    frees = entered.left is not None and entered.left.type in HOLDING and entered.state.type not in HOLDING
    return frees or entered.state.is_scheduled


async def _committed(connection: AsyncConnection, earlier: Sequence[Attempt]) -> list[Outcome] | None:
    """Return the outcomes of the earlier attempt that was committed, if any. The caller must hold the locks."""
    doubtful = [each for each in earlier if each.is_doubtful]
    if not doubtful:
        return None
    stored = await sql.stored(connection, set().union(*(each.minted for each in doubtful)))
    for each in doubtful:
        if not each.minted.isdisjoint(stored):
            return each.outcomes
        each.is_undone = True
    return None


async def load(connection: AsyncConnection, requests: Sequence[Request], now: datetime) -> UnitOfWork:
    """Load everything that rules read. Locks are always acquired in this order, to avoid deadlocks."""
    unit = UnitOfWork()
    proposals = [each for each in requests if isinstance(each, ProposeState)]
    creations = [each for each in requests if isinstance(each, CreateRun)]
    reports = [each for each in requests if isinstance(each, RecordState)]
    reporting = {parent for each in reports for parent in references(each.run)}
    flow_runs = {each.run_id for each in proposals if each.kind is RunKind.FLOW_RUN}
    task_runs = {each.run_id for each in proposals if each.kind is RunKind.TASK_RUN}
    # Flow runs lock their flow and deployment by foreign keys, so batches that create flow runs insert first.
    if all(isinstance(each.run, TaskRun) for each in creations):
        parents = reporting.union(parent for each in creations for parent in references(each.run))
        await _lock_flow_runs(connection, unit, flow_runs, task_runs, parents)
        await create(connection, creations, unit, _parents(unit))
    else:
        await create(connection, creations, unit)
        await _lock_flow_runs(connection, unit, flow_runs, task_runs, reporting)
    # The first state of a new subflow run is entered on its task run, too.
    reported = {each.run.id for each in reports}
    await _lock_task_runs(connection, unit, task_runs | reported | mirrors(creations, unit), flow_runs)
    await _load_reports(connection, reports, unit)
    # Locking tells whether limits exist; runs that this batch created were not locked.
    unit.has_limits |= not unit.created.isdisjoint(flow_runs | task_runs)
    await _load_limits(connection, proposals, unit)
    unit.cached = await _load_cached(connection, proposals, now)
    keyed = [each for each in proposals if each.idempotency_key is not None]
    known = await sql.answers(
        connection, {each.run_id for each in keyed}, {each.idempotency_key for each in keyed if each.idempotency_key}
    )
    unit.answers = {(each.run_id, each.key): each for each in known}
    return unit


async def _load_reports(connection: AsyncConnection, reports: Sequence[RecordState], unit: UnitOfWork) -> None:
    """Create the reported runs that do not exist, lock those that have another id, and find the states that exist."""
    if not reports:
        return
    asked = {each.state.id for each in reports} | {each.follows for each in reports if each.holds}
    unit.recorded = await sql.stored(connection, [each for each in asked if each is not None])
    # The first report of each run creates it.
    missing = {each.run.id: each for each in reversed(unheld(reports, unit)) if each.run.id not in unit.runs}
    await create(connection, list(missing.values()), unit, _parents(unit))
    await _lock_task_runs(
        connection, unit, {unit.existing[each] for each in missing.keys() & unit.existing.keys()}, set()
    )


def _parents(unit: UnitOfWork) -> sql.Existing:
    """Return the locked flow runs. If a batch creates task runs only, they can refer to nothing else."""
    flow_runs = [run for run in unit.runs.values() if isinstance(run, FlowRun)]
    refs = {run.id: sql.FlowRunRefs(run.flow_id, run.deployment_id, run.cause) for run in flow_runs}
    return sql.Existing(set(unit.runs), refs)


async def _lock_flow_runs(
    connection: AsyncConnection,
    unit: UnitOfWork,
    flow_runs: set[UUID],
    task_runs: set[UUID],
    parents: Collection[UUID] = (),
) -> None:
    """Lock flow runs in order of their ids: those with proposals, and those of existing and new task runs."""
    locked = await sql.lock_flow_runs(
        connection,
        # This transaction holds locks on the rows that it inserted.
        flow_runs.union(parents) - unit.created,
        of_tasks=task_runs - unit.created,
        shared=not flow_runs,  # transitions of task runs only need the state of their flow run not to change
    )
    _add_locked(unit, locked)


async def _lock_task_runs(
    connection: AsyncConnection, unit: UnitOfWork, task_runs: set[UUID], flow_runs: set[UUID]
) -> None:
    """Lock task runs in order of their ids: those with proposals, and those that represent subflow runs."""
    locked = await sql.lock_task_runs(connection, task_runs - unit.created, of_subflows=flow_runs - unit.created)
    _add_locked(unit, locked)
    unit.flow_run_refs |= {each.run.id: each.refs for each in locked}


def _add_locked(unit: UnitOfWork, locked: Sequence[sql.Locked]) -> None:
    """Add locked runs and their states to the unit."""
    unit.has_limits |= any(each.limited for each in locked)
    for each in locked:
        unit.runs[each.run.id] = each.run
        if each.state is not None:
            unit.states[each.run.id] = as_state(each.state)


def as_state(row: FlowRunState | TaskRunState) -> State:
    """Return a stored state as a value for rules, without `data`."""
    # Rules read `persisted` only, so `data`, which can be large, stays in the database.
    return State(
        type=row.type,
        name=row.name,
        message=row.message,
        details=row.details,
        id=row.id,
        timestamp=row.timestamp,
        version=row.version,
        persisted=row.persisted,
    )


async def _load_limits(connection: AsyncConnection, proposals: Sequence[ProposeState], unit: UnitOfWork) -> None:
    """Lock the limits whose slots may be acquired or released, and load leases. A lease changes only under its lock."""
    deployed = {each.run_id for each in proposals if each.state.type in TAKES_DEPLOYMENT_SLOT}
    # Task runs acquire the slots of their tags only when they enter RUNNING.
    starting = {each.run_id for each in proposals if each.state.type is StateType.RUNNING}
    runs = list(unit.runs.values())
    moving = {each.run_id for each in proposals}
    # Flow runs that are only parents do not change, and neither do their leases.
    holders = {run.id for run in runs if isinstance(run, TaskRun) or run.id in moving} - unit.created
    asked = {run.deployment_id for run in runs if isinstance(run, FlowRun) and run.id in deployed and run.deployment_id}
    unit.deployments = {each.id: each for each in await sql.deployments(connection, asked)}
    names = {f"tag:{tag}" for run in runs if isinstance(run, TaskRun) and run.id in starting for tag in run.tags}
    ids = {each.concurrency_limit_id for each in unit.deployments.values() if each.concurrency_limit_id}
    if not unit.has_limits:
        return
    await lock_limits(connection, unit, ids=ids, names=names, holders=holders)


async def lock_limits(
    connection: AsyncConnection,
    unit: UnitOfWork,
    *,
    holders: Collection[UUID] = (),
    leases: Collection[UUID] = (),
    **which: Any,
) -> None:
    """Lock the selected limits, and load the leases of these holders and the leases with these ids."""
    locked = await sql.lock_limits(connection, holders=holders, leases=leases, **which)
    for limit in locked:
        unit.add_limit(limit)
    # Not all leases of the limits: a rate limit can have thousands.
    for lease in await sql.leases(connection, holders=holders, ids=leases) if locked else ():
        # Another transaction may have added a lease since the limits were locked; its limit is not locked here.
        if lease.limit_id in unit.limits:
            unit.add_lease(lease)


async def _load_cached(
    connection: AsyncConnection, proposals: Sequence[ProposeState], now: datetime
) -> dict[str, State]:
    keys = {
        each.state.details.cache_key
        for each in proposals
        # Forced proposals skip the rule that looks for a cached result.
        if each.state.type is StateType.RUNNING and each.state.details.cache_key and not each.force
    }
    found = await sql.cached_states(connection, keys, now)
    return {key: as_state(row).fresh_copy(copied_from=row.id) for key, row in found.items()}


async def write(connection: AsyncConnection, unit: UnitOfWork, now: datetime) -> None:
    """Write the changes of a unit. The number of statements does not depend on the size of the batch."""
    changed = [unit.runs[each].replace(updated=now) for each in sorted(unit.changed_runs)]
    changes = [
        inserted(FlowRunState, [_state_row(each) for each in unit.transitions if isinstance(each.run, FlowRun)]),
        inserted(
            TaskRunState, [_state_row(each) for each in unit.transitions + unit.late if isinstance(each.run, TaskRun)]
        ),
        updated(FlowRun, sql.FLOW_RUN_MOVED, [run for run in changed if isinstance(run, FlowRun)]),
        *_moved([run for run in changed if isinstance(run, TaskRun)], unit),
        # Numbered under the locks of the runs: the order of a run's entries agrees with its versions.
        inserted(Transition, [_transition(each, unit) for each in unit.transitions]),
        await tallies.added(connection, _tally_changes(unit)),
        *_limit_changes(unit, now),
        inserted(CacheEntry, [vars(entry) for entry in unit.new_cached]),
        inserted(ProposalAnswer, [vars(answer) for answer in unit.new_answers]),
        inserted(RunClaim, [vars(claim) for claim in unit.new_claims]),
        deleted(RunClaim, unit.gone_claims),
        replaced(FlowRunInput, ("flow_run_id", "key"), [vars(each) for each in unit.new_inputs]),
        replaced(ConcurrencyWaiter, WAITER, [vars(each) for each in unit.waiters.values()]),
        deleted_by_key(ConcurrencyWaiter, WAITER, sorted(unit.gone_waiters)),
    ]
    # Loaded leases are advanced in memory; they are written afterwards, so that they are not advanced twice.
    await _advance_leases(connection, unit)
    await bulk.write(connection, changes)
    # The copy updates states that must have been inserted.
    copies = [(each.state.id, each.state.copied_from) for each in unit.transitions if each.state.copied_from]
    await sql.copy_data(connection, copies)  # type: ignore[arg-type]
    await write_artifacts(connection, unit.transitions)


def _moved(changed: Sequence[TaskRun], unit: UnitOfWork) -> list[TableWrite]:
    """Return the writes of changed task runs, one for each set of columns that clients reported."""
    groups: dict[tuple[str, ...], list[TaskRun]] = {}
    for run in changed:
        reported = unit.reported_columns.get(run.id)
        further = tuple(sorted(reported.difference(sql.TASK_RUN_MOVED))) if reported else ()
        groups.setdefault(further, []).append(run)
    return [updated(TaskRun, (*sql.TASK_RUN_MOVED, *further), runs) for further, runs in groups.items()]


async def write_limits(transaction: Transaction, unit: UnitOfWork, now: datetime) -> None:
    """Write changed limits and leases."""
    await _advance_leases(transaction.connection, unit)
    await bulk.write(transaction.connection, _limit_changes(unit, now))
    if unit.has_released:
        transaction.notify(SLOTS)


async def _advance_leases(connection: AsyncConnection, unit: UnitOfWork) -> None:
    """Let stored leases expire sooner. Loaded leases were changed in memory and are written afterwards."""
    await sql.advance_leases(connection, [(each.limit_id, each.after, each.by) for each in unit.advances])


def _limit_changes(unit: UnitOfWork, now: datetime) -> list[TableWrite]:
    limits = [unit.limits[each].replace(updated=now) for each in sorted(unit.changed_limits)]
    # A lease can be changed and then released in the same batch.
    leases = [unit.leases[each] for each in unit.changed_leases if each in unit.leases]
    return [
        updated(ConcurrencyLimit, ("updated", "occupied", "drained", "average_slot_occupancy_seconds"), limits),
        updated(ConcurrencyLease, ("updated", "expires"), leases),
        inserted(ConcurrencyLease, [vars(unit.leases[each]) for each in unit.new_leases]),
        deleted(ConcurrencyLease, unit.gone_leases),
    ]


def _state_row(entered: Entered) -> dict[str, Any]:
    columns = state_columns(entered.run.id, entered.state, entered.actor, entered.request_id)
    # The answer still has the data; only the stored row is without it.
    return {**columns, "data": None} if is_unpersisted(entered.state.data) else columns


def _tally_changes(unit: UnitOfWork) -> Counter[TallyKey]:
    """Return the change of the number of runs in each state."""
    changes: Counter[TallyKey] = Counter()
    for each in unit.transitions:
        kind, _, (flow_id, deployment_id, _) = _context_of(each, unit)
        if each.left:
            changes[TallyKey(kind, flow_id, deployment_id, each.left.type, each.left.name)] -= 1
        changes[TallyKey(kind, flow_id, deployment_id, each.state.type, each.state.name)] += 1
    return changes


def _context_of(entered: Entered, unit: UnitOfWork) -> tuple[RunKind, UUID | None, sql.FlowRunRefs]:
    """Return the kind of the run, the id of its flow run, and the references of that."""
    run = entered.run
    if isinstance(run, FlowRun):
        return RunKind.FLOW_RUN, run.id, sql.FlowRunRefs(run.flow_id, run.deployment_id, run.cause)
    return RunKind.TASK_RUN, run.flow_run_id, unit.flow_run_refs.get(run.id, sql.NO_FLOW_RUN)


def _transition(entered: Entered, unit: UnitOfWork) -> dict[str, Any]:
    run, left, state = entered.run, entered.left, entered.state
    kind, flow_run_id, (flow_id, deployment_id, cause) = _context_of(entered, unit)
    return {
        "run_kind": kind,
        "run_id": run.id,
        "state_id": state.id,
        "flow_run_id": flow_run_id,
        "flow_id": flow_id,
        "deployment_id": deployment_id,
        "version": state.version,
        "occurred": state.timestamp,
        "previous_state_type": left.type if left else None,
        "previous_state_name": left.name if left else None,
        "state_type": state.type,
        "state_name": state.name,
        "message": state.message,
        "tags": run.tags,
        "run_name": run.name,
        "run_count": run.run_count,
        "cause": cause,
    }
