"""A batch, from facts to answers: load and lock, play, write, tell. The only writer of states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.ledger import Entered, Ledger
from runstate.core.play import Chances, play, references, state_columns
from runstate.core.requests import CreateRun, Outcome, ProposeState, Request
from runstate.core.states import State, is_unpersisted
from runstate.database import Database
from runstate.database.queries import orchestration as sql
from runstate.database.queries import tallies, writing
from runstate.database.queries.tallies import Counted
from runstate.database.queries.writing import Change, deleted, insert_missing, inserted, replaced, updated
from runstate.documents.states import RunKind, StateType
from runstate.rows import (
    CacheEntry,
    ConcurrencyLease,
    ConcurrencyLimit,
    Deployment,
    Flow,
    FlowRun,
    FlowRunInput,
    FlowRunState,
    ProposalAnswer,
    TaskRun,
    TaskRunState,
    Transition,
)

TAKES_DEPLOYMENT_SLOT = frozenset({StateType.PENDING, StateType.RUNNING, StateType.SCHEDULED})


@dataclass(slots=True)
class Attempt:
    """One try to carry out a batch: filled in before COMMIT is sent, in case nobody hears whether it went through."""

    outcomes: list[Outcome] | None = None
    minted: set[UUID] = field(default_factory=set)
    """Ids of the states that it wrote."""
    is_committed: bool = False
    """Whether it is known to have been committed."""
    is_undone: bool = False
    """Whether it is known to have left nothing."""

    @property
    def is_doubtful(self) -> bool:
        """Whether it wrote something of which nobody knows what became."""
        return bool(self.minted) and not (self.is_committed or self.is_undone)

    def commit(self) -> None:
        """It has been committed."""
        self.is_committed = True


async def orchestrate(
    database: Database,
    requests: Sequence[Request],
    chances: Chances,
    *,
    tell: Callable[[], None] = lambda: None,
    attempt: Attempt | None = None,
    earlier: Sequence[Attempt] = (),
) -> list[Outcome]:
    """Answer requests in one transaction, as if they were made one after another.

    *tell* is called after the commit if states were written. When one of the *earlier* attempts turns out to have been
    committed, its answers are given and nothing is written.
    """
    async with database.write() as transaction:
        ledger = await load(transaction.connection, requests, chances.now)
        kept = await _kept(transaction.connection, earlier)
        if kept is not None:
            transaction.after_commit(tell)
            return kept
        outcomes = [play(request, ledger, chances) for request in requests]
        await write(transaction.connection, ledger, chances.now)
        if attempt is not None:
            attempt.minted = {each.state.id for each in ledger.entered if each.state.id}
            attempt.outcomes = outcomes
            transaction.after_commit(attempt.commit)
        if ledger.entered:
            transaction.after_commit(tell)
    return outcomes


async def _kept(connection: AsyncConnection, earlier: Sequence[Attempt]) -> list[Outcome] | None:
    """The answers of an earlier attempt whose states are there. Everything it touched is locked by now."""
    doubtful = [each for each in earlier if each.is_doubtful]
    if not doubtful:
        return None
    stored = await sql.stored(connection, set().union(*(each.minted for each in doubtful)))
    for each in doubtful:
        if not each.minted.isdisjoint(stored):
            return each.outcomes
        each.is_undone = True
    return None


async def load(connection: AsyncConnection, requests: Sequence[Request], now: datetime) -> Ledger:
    """Everything that the rules may look at, in the order of locks that everybody keeps."""
    ledger = Ledger()
    proposals = [each for each in requests if isinstance(each, ProposeState)]
    creations = [each for each in requests if isinstance(each, CreateRun)]
    flow_runs = {each.run_id for each in proposals if each.kind is RunKind.FLOW_RUN}
    task_runs = {each.run_id for each in proposals if each.kind is RunKind.TASK_RUN}
    if all(isinstance(each.run, TaskRun) for each in creations):
        parents = {parent for each in creations for parent in references(each.run)}
        await _lock_flow_runs(connection, ledger, flow_runs, task_runs, parents)
        await _create(connection, creations, ledger, _parents(ledger))
    else:
        await _create(connection, creations, ledger)
        await _lock_flow_runs(connection, ledger, flow_runs, task_runs)
    await _lock_task_runs(connection, ledger, task_runs | _mirrors(creations, ledger), flow_runs)
    ledger.limited |= not ledger.created.isdisjoint(flow_runs | task_runs)
    await _load_limits(connection, proposals, ledger, now)
    ledger.cached = await _load_cached(connection, proposals, now)
    keyed = [each for each in proposals if each.idempotency_key is not None]
    known = await sql.answers(
        connection, {each.run_id for each in keyed}, {each.idempotency_key for each in keyed if each.idempotency_key}
    )
    ledger.answers = {(each.run_id, each.key): each for each in known}
    return ledger


def _parents(ledger: Ledger) -> sql.Existing:
    """The flow runs that are locked: no others need to be looked for, where only task runs are created."""
    flow_runs = [run for run in ledger.runs.values() if isinstance(run, FlowRun)]
    return sql.Existing(set(ledger.runs), {run.id: (run.flow_id, run.deployment_id) for run in flow_runs})


async def _create(
    connection: AsyncConnection, creations: Sequence[CreateRun], ledger: Ledger, known: sql.Existing | None = None
) -> None:
    """Insert new runs unless they are there already, or something that they refer to is missing."""
    for runs in _waves([each.run for each in creations]):
        flow_runs = [run for run in runs if isinstance(run, FlowRun)]
        task_runs = [run for run in runs if isinstance(run, TaskRun)]
        there = known or await sql.existing(
            connection,
            {
                Flow: {run.flow_id for run in flow_runs},
                Deployment: {run.deployment_id for run in flow_runs if run.deployment_id},
                FlowRun: {run.flow_run_id for run in task_runs if run.flow_run_id},
                TaskRun: {run.parent_task_run_id for run in flow_runs if run.parent_task_run_id},
            },
        )
        ledger.lacking |= {run.id: each for run in runs for each in references(run) if each not in there.ids}
        await _insert(connection, FlowRun, _insertable(flow_runs, ledger), ledger)
        await _insert(connection, TaskRun, _insertable(task_runs, ledger), ledger)
        await _find(connection, flow_runs, task_runs, ledger)
        ledger.homes |= {run.id: there.homes[run.flow_run_id] for run in task_runs if run.flow_run_id in there.homes}


def _waves(runs: Sequence[FlowRun | TaskRun]) -> Iterator[list[FlowRun | TaskRun]]:
    """Runs in order, parted before one that refers to an earlier one: nearly always all of them at once."""
    wave: list[FlowRun | TaskRun] = []
    for run in runs:
        if {each.id for each in wave}.intersection(references(run)):
            yield wave
            wave = []
        wave.append(run)
    if wave:
        yield wave


def _insertable(runs: Sequence[Any], ledger: Ledger) -> list[Any]:
    """The runs that lack nothing, sorted by unique key: whoever inserts some of them at once does so in this order."""
    possible = [run for run in runs if run.id not in ledger.lacking]
    return sorted(possible, key=lambda run: [str(part) for part in unique_key(run)])


def unique_key(run: FlowRun | TaskRun) -> tuple[UUID | str | None, ...]:
    """What tells a run from every other of its kind; a flow run without an idempotency key has only its id."""
    if isinstance(run, TaskRun):
        return (run.flow_run_id, run.task_key, run.dynamic_key)
    return (run.flow_id, run.idempotency_key) if run.idempotency_key is not None else (run.id,)


async def _insert(connection: AsyncConnection, row: type[FlowRun | TaskRun], runs: list[Any], ledger: Ledger) -> None:
    created = await insert_missing(connection, row, [vars(run) for run in runs])
    ledger.created |= created
    ledger.runs |= {run.id: run for run in runs if run.id in created}


async def _find(
    connection: AsyncConnection, flow_runs: list[FlowRun], task_runs: list[TaskRun], ledger: Ledger
) -> None:
    """Where the unique key was taken, who has it."""
    keyed = {(run.flow_id, run.idempotency_key): run.id for run in flow_runs if run.idempotency_key is not None}
    known: dict[Any, UUID] = {}
    known |= await sql.flow_runs_by_key(
        connection, keyed.keys() if not ledger.created.issuperset(keyed.values()) else ()
    )
    taken = {(run.flow_run_id, run.task_key, run.dynamic_key) for run in task_runs if run.id not in ledger.created}
    known |= await sql.task_runs_by_key(connection, taken)
    everything: list[FlowRun | TaskRun] = [*flow_runs, *task_runs]
    skipped = [run for run in everything if run.id not in ledger.created]
    ledger.found |= {run.id: known.get(unique_key(run), run.id) for run in skipped}


def _mirrors(creations: Sequence[CreateRun], ledger: Ledger) -> set[UUID]:
    """Task runs that mirror flow runs which this batch creates."""
    made = [each.run for each in creations if isinstance(each.run, FlowRun) and each.run.id in ledger.created]
    return {run.parent_task_run_id for run in made if run.parent_task_run_id}


async def _lock_flow_runs(
    connection: AsyncConnection,
    ledger: Ledger,
    flow_runs: set[UUID],
    task_runs: set[UUID],
    parents: Collection[UUID] = (),
) -> None:
    """Lock flow runs by id: those that are asked for, and those that task runs stand in or are to stand in."""
    found = await sql.lock_flow_runs(
        connection,
        flow_runs.union(parents) - ledger.created,
        of_tasks=task_runs - ledger.created,
        shared=not flow_runs,
    )
    _note(ledger, found)


async def _lock_task_runs(
    connection: AsyncConnection, ledger: Ledger, task_runs: set[UUID], flow_runs: set[UUID]
) -> None:
    """Lock task runs by id: those that are asked for, and those that stand for flow runs in their parents."""
    found = await sql.lock_task_runs(connection, task_runs - ledger.created, of_subflows=flow_runs - ledger.created)
    _note(ledger, found)
    ledger.homes |= {each.run.id: (each.flow_id, each.deployment_id) for each in found}


def _note(ledger: Ledger, found: Sequence[sql.Locked]) -> None:
    """Runs that cannot change any more, and their states."""
    ledger.limited |= any(each.limited for each in found)
    for each in found:
        ledger.runs[each.run.id] = each.run
        if each.state is not None:
            ledger.states[each.run.id] = as_state(each.state)


def as_state(row: FlowRunState | TaskRunState) -> State:
    """A stored state as rules see it, without its data."""
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


async def _load_limits(
    connection: AsyncConnection,
    proposals: Sequence[ProposeState],
    ledger: Ledger,
    now: datetime,
) -> None:
    """Limits that runs may enter or hold, locked; then their leases, which change only under these locks."""
    deployed = {each.run_id for each in proposals if each.state.type in TAKES_DEPLOYMENT_SLOT}
    starting = {each.run_id for each in proposals if each.state.type is StateType.RUNNING}
    runs = list(ledger.runs.values())
    moving = {each.run_id for each in proposals}
    holders = {run.id for run in runs if isinstance(run, TaskRun) or run.id in moving} - ledger.created
    asked = {run.deployment_id for run in runs if isinstance(run, FlowRun) and run.id in deployed and run.deployment_id}
    ledger.deployments = {each.id: each for each in await sql.deployments(connection, asked)}
    names = {f"tag:{tag}" for run in runs if isinstance(run, TaskRun) and run.id in starting for tag in run.tags}
    ids = {each.concurrency_limit_id for each in ledger.deployments.values() if each.concurrency_limit_id}
    if not ledger.limited:
        return
    await lock_limits(connection, ledger, now, ids=ids, names=names, holders=holders)


async def lock_limits(
    connection: AsyncConnection,
    ledger: Ledger,
    now: datetime,
    *,
    holders: Collection[UUID] = (),
    leases: Collection[UUID] = (),
    **which: Any,
) -> None:
    """Limits, locked, as the query takes them; with the leases that are meant and all those of limits with decay."""
    locked = await sql.lock_limits(connection, holders=holders, leases=leases, **which)
    ledger.limits = {limit.id: limit for limit in locked}
    decaying = [limit.id for limit in locked if limit.slot_decay_per_second > 0]
    if locked:
        held = await sql.leases(connection, now, holders=holders, ids=leases, limits=decaying)
        ledger.leases = {lease.id: lease for lease in held if lease.limit_id in ledger.limits}


async def _load_cached(
    connection: AsyncConnection, proposals: Sequence[ProposeState], now: datetime
) -> dict[str, State]:
    keys = {
        each.state.details.cache_key
        for each in proposals
        if each.state.type is StateType.RUNNING and each.state.details.cache_key and not each.force
    }
    found = await sql.cached_states(connection, keys, now)
    return {key: as_state(row).fresh_copy(copied_from=row.id) for key, row in found.items()}


async def write(connection: AsyncConnection, ledger: Ledger, now: datetime) -> None:
    """What was decided, in a fixed number of statements."""
    moved = [ledger.runs[each].amended(updated=now) for each in sorted(ledger.moved)]
    flow_runs = [run for run in moved if isinstance(run, FlowRun)]
    task_runs = [run for run in moved if isinstance(run, TaskRun)]
    changes = [
        inserted(FlowRunState, [_stored(each) for each in ledger.entered if isinstance(each.run, FlowRun)]),
        inserted(TaskRunState, [_stored(each) for each in ledger.entered if isinstance(each.run, TaskRun)]),
        updated(FlowRun, sql.FLOW_RUN_MOVED, flow_runs),
        updated(TaskRun, sql.TASK_RUN_MOVED, task_runs),
        inserted(Transition, [_logged(each, ledger) for each in ledger.entered]),
        await tallies.added(connection, _changes(ledger)),
        *_limits(ledger, now),
        inserted(CacheEntry, [vars(entry) for entry in ledger.new_cached]),
        inserted(ProposalAnswer, [vars(answer) for answer in ledger.new_answers]),
        replaced(FlowRunInput, ("flow_run_id", "key"), [vars(each) for each in ledger.new_inputs]),
    ]
    await writing.write(connection, changes)
    copies = [(each.state.id, each.state.copied_from) for each in ledger.entered if each.state.copied_from]
    await sql.copy_data(connection, copies)  # type: ignore[arg-type]


async def write_limits(connection: AsyncConnection, ledger: Ledger, now: datetime) -> None:
    """Counters of limits and the leases that make them up."""
    await writing.write(connection, _limits(ledger, now))


def _limits(ledger: Ledger, now: datetime) -> list[Change]:
    limits = [ledger.limits[each].amended(updated=now) for each in sorted(ledger.changed_limits)]
    leases = [ledger.leases[each] for each in ledger.changed_leases if each in ledger.leases]
    return [
        updated(ConcurrencyLimit, ("updated", "occupied", "drained", "average_slot_occupancy_seconds"), limits),
        updated(ConcurrencyLease, ("updated", "expires"), leases),
        inserted(ConcurrencyLease, [vars(ledger.leases[each]) for each in ledger.new_leases]),
        deleted(ConcurrencyLease, ledger.gone_leases),
    ]


def _stored(entered: Entered) -> dict[str, Any]:
    columns = state_columns(entered.run.id, entered.state, entered.actor, entered.request_id)
    return {**columns, "data": None} if is_unpersisted(entered.state.data) else columns


def _changes(ledger: Ledger) -> Counter[Counted]:
    """How many more or less runs there are in each state now."""
    changes: Counter[Counted] = Counter()
    for each in ledger.entered:
        kind, _, flow_id, deployment_id = _home(each, ledger)
        if each.left:
            changes[Counted(kind, flow_id, deployment_id, each.left.type, each.left.name)] -= 1
        changes[Counted(kind, flow_id, deployment_id, each.state.type, each.state.name)] += 1
    return changes


def _home(entered: Entered, ledger: Ledger) -> tuple[RunKind, UUID | None, UUID | None, UUID | None]:
    """What kind of run it is, and the flow run, flow and deployment that it belongs to."""
    run = entered.run
    if isinstance(run, FlowRun):
        return RunKind.FLOW_RUN, run.id, run.flow_id, run.deployment_id
    return RunKind.TASK_RUN, run.flow_run_id, *ledger.homes.get(run.id, (None, None))


def _logged(entered: Entered, ledger: Ledger) -> dict[str, Any]:
    run, left, state = entered.run, entered.left, entered.state
    kind, flow_run_id, flow_id, deployment_id = _home(entered, ledger)
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
    }
