"""The transactions of claims: due runs go to workers by the rules, and claimed runs are taken from them again."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from runstate.core.batch.decide import Environment, decide_request
from runstate.core.batch.orchestrate import load, notify, write
from runstate.core.batch.requests import Lease, ProposeState
from runstate.core.batch.unit_of_work import UnitOfWork
from runstate.core.slots import seconds_until_room
from runstate.core.states import State, pending, scheduled
from runstate.database import Database
from runstate.database.bulk import TableWrite, inserted, replaced
from runstate.database.bulk import write as write_rows
from runstate.database.queries import claims as sql
from runstate.documents.policies import CollisionStrategy
from runstate.documents.states import RunKind
from runstate.rows import ClaimAnswer, FlowRun, RunClaim

RUNS_A_TRANSACTION: Final = 200
"""Number of runs that one transaction claims at most; a single request may exceed it."""
ROUNDS: Final = 5
"""Transactions of one claim: each goes on behind deployments that the last one found full."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A worker's request for due runs."""

    worker_id: UUID
    queues: frozenset[UUID]
    before: datetime
    first: int
    seconds: float
    """Length of the leases."""
    key: str | None
    actor: str
    request_id: str | None


@dataclass(slots=True)
class Given:
    """The claims that a request got so far."""

    wanted: Wanted
    claims: list[RunClaim] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Number of runs that it still wants."""
        return self.wanted.first - len(self.claims)


class Assigned(NamedTuple):
    """A candidate for a request."""

    run: sql.Candidate
    queue_id: UUID
    given: Given


class PoolHasLimitsError(Exception):
    """A pool got limits since it was read, so its claims exclude each other."""


async def claim(
    database: Database,
    pool_id: UUID,
    wanted: Sequence[Wanted],
    environment: Callable[[], Environment],
    *,
    limited: bool,
) -> list[list[RunClaim]]:
    """Claim due runs for several requests, in their order; return the claims of each.

    Claims of a pool with limits exclude each other by its lock, so that no limit is exceeded. Other claims skip runs
    that another one has locked.
    """
    given = [Given(each) for each in wanted]
    full: set[UUID] = set()
    for _ in range(ROUNDS):
        try:
            found = await _round(database, pool_id, given, environment(), full, limited=limited)
        except PoolHasLimitsError:
            # The next round takes the exclusive lock.
            limited, found = True, None
        if found is not None and (found <= full or not any(each.missing for each in given)):
            break
        full |= found or set()
    return [each.claims for each in given]


async def _round(
    database: Database,
    pool_id: UUID,
    given: Sequence[Given],
    environment: Environment,
    full: Collection[UUID],
    *,
    limited: bool,
) -> set[UUID]:
    """Claim due runs in one transaction; return the deployments whose limits were full."""
    async with database.write() as transaction:
        connection = transaction.connection
        locked = await sql.lock_pool(connection, pool_id, shared=not limited)
        if locked is None or locked[0].paused:
            return set()
        pool, database_now = locked
        if pool.is_limited and not limited:
            raise PoolHasLimitsError
        assigned = await _assigned(connection, pool, given, full)
        if not assigned:
            return set()
        requests = [_request(each, database_now) for each in assigned]
        unit = await load(connection, requests, environment.now)
        held = _decide(unit, requests, environment)
        await write(connection, unit, environment.now)
        made = _claims_of(unit, assigned)
        await write_rows(connection, list(_answers(given, made, environment.now)))
        notify(transaction, unit)
    # After the commit: a failed transaction gave nothing.
    for each, claim in made:
        each.given.claims.append(claim)
    return held


async def _assigned(connection: Any, pool: sql.Pool, given: Sequence[Given], full: Collection[UUID]) -> list[Assigned]:
    """Choose the runs for each request, queue by queue in order of priority, within the limits of pool and queues."""
    free = await sql.free_slots(connection, pool)
    chosen, missing = list[Assigned](), [each.missing for each in given]
    for queue in pool.queues:
        asking = [place for place, each in enumerate(given) if queue.id in each.wanted.queues and missing[place] > 0]
        most = min(sum(missing[place] for place in asking), free[queue.id], free[pool.id] - len(chosen))
        if queue.paused or most <= 0:
            continue
        before = max(given[place].wanted.before for place in asking)
        for run in await sql.candidates(connection, queue.id, before, most, full):
            place = next((p for p in asking if missing[p] > 0 and run.due <= given[p].wanted.before), None)
            if place is not None:
                missing[place] -= 1
                chosen.append(Assigned(run, queue.id, given[place]))
    return chosen


def _request(assigned: Assigned, database_now: datetime) -> ProposeState:
    wanted = assigned.given.wanted
    expires = database_now + timedelta(seconds=wanted.seconds)
    return ProposeState(
        kind=RunKind.FLOW_RUN,
        run_id=assigned.run.id,
        state=pending(),
        expected_version=assigned.run.version,
        lease=Lease(
            worker_id=wanted.worker_id, work_queue_id=assigned.queue_id, seconds=wanted.seconds, expires=expires
        ),
        actor=wanted.actor,
        request_id=wanted.request_id,
    )


def _decide(unit: UnitOfWork, requests: Sequence[ProposeState], environment: Environment) -> set[UUID]:
    """Decide the proposals in order; leave out runs that would only wait, and return their deployments."""
    held = set[UUID]()
    for request in requests:
        run = unit.runs.get(request.run_id)
        if isinstance(run, FlowRun) and run.deployment_id and _waits(unit, run, environment.now):
            held.add(run.deployment_id)
        else:
            # The rules may refuse, reschedule or cancel a run; the claim goes on.
            decide_request(request, unit, environment)
    return held


def _waits(unit: UnitOfWork, run: FlowRun, now: datetime) -> bool:
    """Return whether the deployment of a run has no free slot, and its runs wait for one where they are."""
    deployment = unit.deployments.get(run.deployment_id) if run.deployment_id else None
    limit = unit.limits.get(deployment.concurrency_limit_id) if deployment and deployment.concurrency_limit_id else None
    if deployment is None or limit is None or not limit.active or unit.held_by(run.id):
        return False
    options = deployment.concurrency_options
    # With CANCEL_NEW the rules must see the run, because they cancel it.
    waits = options is None or options.collision_strategy is not CollisionStrategy.CANCEL_NEW
    return waits and (limit.limit == 0 or seconds_until_room(limit, 1, now) > 0)


def _claims_of(unit: UnitOfWork, assigned: Sequence[Assigned]) -> list[tuple[Assigned, RunClaim]]:
    claims = {each.flow_run_id: each for each in unit.new_claims}
    return [(each, claims[each.run.id]) for each in assigned if each.run.id in claims]


def _answers(given: Sequence[Given], made: Sequence[tuple[Assigned, RunClaim]], now: datetime) -> Iterator[TableWrite]:
    """Yield the writes of the answers to requests with an idempotency key that got claims.

    The first one is inserted: if another request with the key was faster, the key is violated.
    """
    for each in given:
        ids = [str(claim.id) for assigned, claim in made if assigned.given is each]
        if each.wanted.key is not None and ids:
            row = {"worker_id": each.wanted.worker_id, "key": each.wanted.key, "created": now}
            row["claim_ids"] = [*(str(claim.id) for claim in each.claims), *ids]
            yield replaced(ClaimAnswer, ("worker_id", "key"), [row]) if each.claims else inserted(ClaimAnswer, [row])


async def end_claims(
    database: Database,
    claims: Collection[RunClaim],
    end: Callable[[FlowRun, RunClaim, UnitOfWork], ProposeState | None],
    environment: Environment,
    *,
    expired: bool = False,
) -> list[UUID]:
    """End claims, each with the state that `end` proposes for its run, or without one; return their ids.

    With `expired`, claims that were renewed meanwhile stay.
    """
    if not claims:
        return []
    async with database.write() as transaction:
        connection, ended = transaction.connection, list[UUID]()
        # Whatever the state, the runs, their deployments and their slots are locked.
        asked = [_touch(each.flow_run_id, environment.now) for each in claims]
        unit = await load(connection, asked, environment.now)
        for each in await sql.lock_claims(connection, [each.id for each in claims], expired=expired):
            run = unit.runs.get(each.flow_run_id)
            if isinstance(run, FlowRun) and run.claim_id == each.id:
                request = end(run, each, unit)
                if request is not None:
                    decide_request(request, unit, environment)
                _end(unit, run.id)
                ended.append(each.id)
        await write(connection, unit, environment.now)
        notify(transaction, unit)
    return ended


def _touch(run_id: UUID, now: datetime) -> ProposeState:
    return ProposeState(kind=RunKind.FLOW_RUN, run_id=run_id, state=scheduled(now))


def _end(unit: UnitOfWork, run_id: UUID) -> None:
    run = unit.runs[run_id]
    if isinstance(run, FlowRun):
        unit.end_claim(run)


def due_again(unit: UnitOfWork, run: FlowRun, now: datetime, message: str | None) -> State:
    """Return the state of a claimed run that is returned: SCHEDULED at its original time."""
    state = unit.states.get(run.id)
    original = state.details.scheduled_time if state else None
    # At its old time, so that it does not lose its place behind runs that were scheduled later.
    return scheduled(now, original or run.expected_start_time or now, message=message)


@dataclass(eq=False, slots=True)
class Waiting:
    """A request that waits for its transaction."""

    wanted: Wanted
    limited: bool
    claims: asyncio.Future[list[RunClaim]]


class ClaimQueue:
    """Collects the claims of a process: those that arrive during a transaction for their pool share the next one."""

    def __init__(self, database: Database, environment: Callable[[], Environment]) -> None:
        self.database = database
        self.environment = environment
        self.waiting: defaultdict[UUID, deque[Waiting]] = defaultdict(deque)
        self.running: dict[UUID, asyncio.Task[None]] = {}

    async def claim(self, pool_id: UUID, wanted: Wanted, *, limited: bool) -> list[RunClaim]:
        """Claim due runs of a pool. Cancelling the caller does not cancel the claim."""
        waiting = Waiting(wanted, limited, asyncio.get_running_loop().create_future())
        self.waiting[pool_id].append(waiting)
        if pool_id not in self.running:
            # It serves many requests, so it must not inherit the context of the first one.
            self.running[pool_id] = asyncio.create_task(self._serve(pool_id), context=Context())
        return await asyncio.shield(waiting.claims)

    async def close(self) -> None:
        """Answer those that wait."""
        while self.running:
            await asyncio.wait(list(self.running.values()))

    async def _serve(self, pool_id: UUID) -> None:
        try:
            while group := self._next(self.waiting[pool_id]):
                await self._answer(pool_id, group)
        finally:
            del self.running[pool_id]
            if not self.waiting[pool_id]:
                del self.waiting[pool_id]

    def _next(self, waiting: deque[Waiting]) -> list[Waiting]:
        group, size = list[Waiting](), 0
        # At least one, however large, so that a request for many runs is served, too.
        while waiting and (not group or size + waiting[0].wanted.first <= RUNS_A_TRANSACTION):
            size += waiting[0].wanted.first
            group.append(waiting.popleft())
        return group

    async def _answer(self, pool_id: UUID, group: Sequence[Waiting]) -> None:
        limited = any(each.limited for each in group)
        try:
            wanted = [each.wanted for each in group]
            found = await claim(self.database, pool_id, wanted, self.environment, limited=limited)
        except Exception as error:  # noqa: BLE001 each caller gets it
            # A worker that was deleted meanwhile, say, must not fail the others.
            if len(group) > 1:
                for each in group:
                    await self._answer(pool_id, [each])
            elif not group[0].claims.done():
                group[0].claims.set_exception(error)
        else:
            for each, claims in zip(group, found, strict=True):
                if not each.claims.done():
                    each.claims.set_result(claims)
