"""Claims of workers: claim, renew, release, and the claims of workers and pools that are deleted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError, IntegrityError

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.batch.claiming import Wanted, due_again, end_claims
from runstate.core.batch.decide import Environment
from runstate.core.batch.requests import ProposeState
from runstate.core.batch.unit_of_work import UnitOfWork
from runstate.core.commands.command import TRIES, command
from runstate.core.commands.work_pools import check_time, remove_pool
from runstate.core.commands.workers import PollNames, mark_poll, remove_worker
from runstate.core.context import CommandContext
from runstate.core.states import State
from runstate.database.bulk import table_of
from runstate.database.failures import Kind, failure_of, reason
from runstate.database.queries import claims as sql
from runstate.database.queries.orchestration import all_of
from runstate.database.queries.work import MARKED_EVERY
from runstate.documents.access import SERVICE
from runstate.documents.pools import ClaimFlowRuns, ReleaseClaims, RenewClaims
from runstate.documents.states import RunKind, StateType
from runstate.errors import NotFound
from runstate.rows import ClaimAnswer, FlowRun, RunClaim, Worker

log = structlog.get_logger(__name__)

MOST_EXPIRED: Final = 3
"""Number of claims of a run that expire before the run crashes."""
PAGE: Final = 200
"""Claims that one transaction ends."""


class Claimed(NamedTuple):
    """The claims of a worker, the time at which the next run becomes due, and whether an earlier request made them."""

    claims: Sequence[RunClaim]
    next_due: datetime | None
    replayed: bool = False


class Renewed(NamedTuple):
    """Claims that were extended, the ids of those that have ended, and the ids of runs to cancel."""

    renewed: Sequence[RunClaim]
    lost: Sequence[UUID]
    cancelling: Sequence[UUID]


class Released(NamedTuple):
    """The ids of claims that were ended, and of those that had ended before."""

    released: Sequence[UUID]
    missing: Sequence[UUID]


async def claim_flow_runs(batcher: Batcher, document: ClaimFlowRuns, **actor: Any) -> Claimed:
    """Claim due runs of a pool for a worker. A poll of a pool without due runs only reads an index."""
    now = batcher.clock()
    before = document.due_before or now
    # A worker may look ahead by an hour at most; runs of later times would be held for nothing.
    check_time(before, now)
    for _ in range(TRIES - 1):
        try:
            return await _claim(batcher.context, document, batcher, before, actor)
        except DBAPIError as error:
            # A violated constraint: another request with the key was faster, or the worker was deleted.
            if not isinstance(error, IntegrityError) and failure_of(error).kind is not Kind.CONFLICT:
                raise
            log.info("a claim is repeated", reason=reason(error))
    return await _claim(batcher.context, document, batcher, before, actor)


async def _claim(
    context: CommandContext, document: ClaimFlowRuns, batcher: Batcher, before: datetime, actor: dict[str, Any]
) -> Claimed:
    async with context.database.read() as connection:
        # One statement for the pool, the worker and the first due time of each queue: most polls end after it.
        poll = await sql.read_poll(connection, document.work_pool, document.worker)
    if poll is None:
        raise NotFound(message=f"No work pool has the name `{document.work_pool}`.")
    queues = _chosen(poll.pool.queues, document.work_queues)
    # Even a poll that finds nothing tells that the worker is alive.
    worker_id = await _marked(context, document, poll, queues)
    ids = frozenset(each.id for each in queues)
    # The answer to the first request was lost: the worker gets the claims that it made, not further ones.
    if document.idempotency_key and (known := await _stored(context, worker_id, document.idempotency_key)) is not None:
        return Claimed(known, await _next_due(context, ids, before), replayed=True)
    due = [each.first_due for each in queues if each.first_due is not None]
    if not any(each <= before for each in due):
        return Claimed((), min(due, default=None))
    wanted = Wanted(
        worker_id=worker_id,
        queues=ids,
        before=before,
        first=document.first,
        seconds=document.lease_seconds,
        key=document.idempotency_key,
        actor=actor["actor"],
        request_id=actor["request_id"],
    )
    # Waiting requests for one pool are served by one transaction: otherwise each would wait for the same locks.
    made = await batcher.claims.claim(poll.pool.id, wanted, limited=poll.pool.is_limited)
    return Claimed(made, await _next_due(context, ids, before))


def _chosen(queues: Sequence[sql.Queue], names: Sequence[str] | None) -> list[sql.Queue]:
    unknown = set(names or ()) - {each.name for each in queues}
    if unknown:
        raise NotFound(message=f"The pool has no queue `{min(unknown)}`.")
    return [each for each in queues if names is None or each.name in names]


async def _marked(
    context: CommandContext, document: ClaimFlowRuns, poll: sql.Poll, queues: Sequence[sql.Queue]
) -> UUID:
    """Record the poll unless that was done seconds ago; return the id of the worker."""
    since = context.clock() - MARKED_EVERY
    times = [poll.heartbeat, *(each.last_polled for each in queues)]
    if poll.worker_id is not None and all(each is not None and each > since for each in times):
        return poll.worker_id
    names = PollNames(document.work_pool, document.worker)
    return (await mark_poll(context, names, [each.id for each in queues])).id


async def _stored(context: CommandContext, worker_id: UUID, key: str) -> list[RunClaim] | None:
    """Return the live claims of an earlier request with a key, in order; None without one."""
    asked = sa.select(ClaimAnswer.claim_ids).where(ClaimAnswer.worker_id == worker_id, ClaimAnswer.key == key)
    async with context.database.read() as connection:
        found = (await connection.execute(asked)).scalar()
        if found is None:
            return None
        ids = [UUID(each) for each in found]
        claims = {each.id: each for each in await sql.claims_by_id(connection, ids)}
    # Claims that have ended since are left out: the worker must not start their runs.
    return [claims[each] for each in ids if each in claims]


async def _next_due(context: CommandContext, queues: Collection[UUID], before: datetime) -> datetime | None:
    async with context.database.read() as connection:
        return await sql.next_due(connection, queues, before)


@command(RunClaim, notify=None)
async def renew_claims(context: CommandContext, document: RenewClaims) -> Renewed:
    """Extend leases; tell which have ended and which runs are to be cancelled."""
    # Each id once, in the order of the request.
    ids = dict.fromkeys(document.claim_ids)
    async with context.database.write() as transaction:
        connection = transaction.connection
        renewed = {each.id: each for each in await sql.renew(connection, ids, document.lease_seconds, context.clock())}
        which = sql.among_ids(renewed)
        cancelling = list((await connection.execute(sql.cancelling_of(which))).scalars()) if renewed else []
    there = [renewed[each] for each in ids if each in renewed]
    return Renewed(there, [each for each in ids if each not in renewed], cancelling)


async def cancelling_runs(context: CommandContext, worker_id: UUID) -> list[UUID]:
    """Return the ids of the runs that a worker holds and has to cancel."""
    async with context.database.read() as connection:
        return list((await connection.execute(sql.cancelling_of(RunClaim.worker_id == worker_id))).scalars())


async def release_claims(context: CommandContext, document: ReleaseClaims, **actor: Any) -> Released:
    """End claims: return runs that were not started, or report that they failed."""
    end = partial(_released, context, document, actor)
    ids = list(dict.fromkeys(document.claim_ids))
    released = set(await _end(context, ids, end))
    return Released([each for each in ids if each in released], [each for each in ids if each not in released])


def _released(
    context: CommandContext, document: ReleaseClaims, actor: dict[str, Any], run: FlowRun, _: RunClaim, unit: UnitOfWork
) -> ProposeState | None:
    message = document.message
    if not document.failed:
        pending = run.state_type is StateType.PENDING
        state = due_again(unit, run, context.clock(), message) if pending else None
    else:
        state = ended(run, message or "The worker could not start the run.")
    return None if state is None else _request(run, state, **actor)


def ended(run: FlowRun, message: str) -> State | None:
    """Return the state of a run whose process is gone; None for a run that has no process."""
    match run.state_type:
        case StateType.CANCELLING:
            return states.cancelled(message=message)
        case StateType.PENDING | StateType.RUNNING | StateType.SCHEDULED:
            return states.crashed(message=message)
        case _:
            return None


def _request(run: FlowRun, state: State, **actor: Any) -> ProposeState:
    return ProposeState(kind=RunKind.FLOW_RUN, run_id=run.id, state=state, force=True, quirks=False, **actor)


@command(RunClaim, notify=None)
async def _end(context: CommandContext, ids: Sequence[UUID], end: Any) -> list[UUID]:
    async with context.database.read() as connection:
        claims = await sql.claims_by_id(connection, ids)
    return await end_claims(context.database, claims, end, _environment(context))


@dataclass(frozen=True, slots=True)
class Expiry:
    """The end of the lease of a worker."""

    context: CommandContext
    reason: str
    crash: bool = True
    """Whether RUNNING runs crash."""
    service: str = "claim-expiry"

    def proposal(self, run: FlowRun, claim: RunClaim, unit: UnitOfWork) -> ProposeState | None:
        """Return the proposal for the run: again SCHEDULED if it was not started, else CRASHED."""
        return _request(run, state, actor=SERVICE + self.service) if (state := self._state(run, unit)) else None

    def _state(self, run: FlowRun, unit: UnitOfWork) -> State | None:
        # The process may have done some of its work, so the run cannot simply be given to another worker.
        if run.state_type is not StateType.PENDING:
            return ended(run, self.reason) if self.crash else None
        expired = run.expired_claims + 1
        unit.change_run(run.replace(expired_claims=expired))
        # Otherwise a run that kills its workers would be claimed again without end.
        if expired >= MOST_EXPIRED:
            return states.crashed(message=f"{self.reason} It was the claim number {expired} that expired.")
        return due_again(unit, run, self.context.clock(), f"{self.reason} The run can be claimed again.")


@command(RunClaim, notify=None)
async def expire_claims(context: CommandContext, claims: Sequence[RunClaim], expiry: Expiry) -> int:
    """End expired claims, unless they were renewed meanwhile, and return their number."""
    return len(await end_claims(context.database, claims, expiry.proposal, _environment(context), expired=True))


def _environment(context: CommandContext) -> Environment:
    return Environment(context.clock(), context.draw, context.new_id)


async def hand_back(context: CommandContext, which: sa.ColumnElement[bool], expiry: Expiry) -> None:
    """End all claims that meet a condition, in batches, as if they expired."""
    asked = sa.select(*table_of(RunClaim).columns).where(which).order_by(RunClaim.id).limit(PAGE)
    while True:
        async with context.database.read() as connection:
            found = await all_of(connection, RunClaim, asked)
        if not found:
            return
        await end_claims(context.database, found, expiry.proposal, _environment(context))


def of_worker(worker_id: UUID) -> sa.ColumnElement[bool]:
    """Return the condition on the claims of a worker."""
    return RunClaim.worker_id == worker_id


def of_pool(pool_id: UUID) -> sa.ColumnElement[bool]:
    """Return the condition on the claims of the workers of a pool."""
    return RunClaim.worker_id.in_(sa.select(Worker.id).where(Worker.work_pool_id == pool_id))


async def delete_worker(context: CommandContext, worker_id: UUID) -> None:
    """Delete a worker. Its claims end as if they expired."""
    # The worker may claim again between the two steps, so both are repeated until it had no claim when it was deleted.
    while not await remove_worker(context, worker_id):
        await hand_back(context, of_worker(worker_id), Expiry(context, "The worker was deleted."))


async def delete_pool(context: CommandContext, pool_id: UUID) -> None:
    """Delete a work pool with its queues, workers and claims. Deployments and runs stay, without a queue."""
    expiry = Expiry(context, "The work pool was deleted.", crash=False)
    while not await remove_pool(context, pool_id):
        await hand_back(context, of_pool(pool_id), expiry)
