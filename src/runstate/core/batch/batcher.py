"""Group commit: requests that arrive while a transaction is running share the next one. There is no timer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast
from uuid import UUID

import structlog
from sqlalchemy.exc import IntegrityError

from runstate.core.batch.claiming import ClaimQueue
from runstate.core.batch.creating import unique_key
from runstate.core.batch.decide import Environment
from runstate.core.batch.orchestrate import Attempt, orchestrate
from runstate.core.batch.requests import CreateRun, Outcome, RecordState, Request
from runstate.core.context import CommandContext
from runstate.core.heartbeats import Heartbeats
from runstate.database import Database
from runstate.database.failures import Kind, as_answer, failure_of, reason
from runstate.errors import Overloaded, Timeout

log = structlog.get_logger(__name__)

REQUESTS_A_BATCH = 200
"""Maximum size of a batch. Requests that were submitted together may exceed it."""
BATCHES_AT_ONCE = 3
"""Batches that run at the same time on PostgreSQL; no two of them concern the same run. SQLite has one writer."""
FULL_BATCH = 50
"""Number of waiting requests that start a batch beside a running one."""
SLOW_BATCH_SECONDS = 0.05
"""Time after which a running batch counts as slow (it is probably waiting for a lock) and the next one may start."""
TRIES = 5
FIRST_PAUSE_SECONDS = 0.05
RETRIED_AFTER_PAUSE = frozenset({Kind.LOST, Kind.STALE})
"""Failures that another connection may not have."""


@dataclass(frozen=True, slots=True)
class RunningBatch:
    """The keys of a running batch, and the time, by the loop's clock, after which it counts as slow."""

    keys: frozenset[object]
    slow_from: float


@dataclass(eq=False, slots=True)
class PendingRequests:
    """Requests that were submitted together, and the future of their outcomes."""

    requests: Sequence[Request]
    outcomes: asyncio.Future[list[Outcome]]
    keys: frozenset[object] = field(default_factory=frozenset)


class Batcher:
    """Collects requests into batches, each decided and written in one transaction. All states are written here."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime],
        draw: Callable[[], float],
        new_id: Callable[[], UUID],
        queue_size: int = 10_000,
        timeout_seconds: float = 30,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self.context = CommandContext(database, clock, new_id, draw)
        self.database = database
        self.heartbeats = Heartbeats(database)
        self.claims = ClaimQueue(database, self.environment)
        self.clock, self.draw, self.new_id = clock, draw, new_id
        self.on_outcomes: Callable[[Sequence[Outcome]], None] = lambda _: None
        """Called with the outcomes of each batch."""
        self.queue_size, self.timeout_seconds = queue_size, timeout_seconds
        self.first_pause_seconds = first_pause_seconds
        self.waiting: deque[PendingRequests] = deque()
        self.in_flight: dict[asyncio.Task[None], RunningBatch] = {}
        # SQLite has one writer: a second batch would only wait for its lock.
        self.max_running = 1 if database.is_sqlite else BATCHES_AT_ONCE
        self.closed = False

    async def submit(self, requests: Sequence[Request]) -> list[Outcome]:
        """Return the outcomes of requests, which are decided in order and in one transaction.

        Raises Overloaded if the queue is full. Raises Timeout if there is no outcome in time: the requests may or may
        not have been carried out. Cancelling the caller does not cancel its requests.
        """
        # Without a limit, the queue would grow for as long as the database is slow.
        if self.closed or len(self.waiting) >= self.queue_size:
            raise Overloaded
        loop = asyncio.get_running_loop()
        # Computed once: every batch that starts compares the keys of all waiting requests.
        keys = frozenset(key for request in requests for key in _keys(request))
        pending = PendingRequests(requests, loop.create_future(), keys)
        self.waiting.append(pending)
        loop.call_soon(self._start)  # after this iteration of the loop: requests that arrived with it share the batch
        timer = loop.call_later(self.timeout_seconds, _time_out, pending)
        try:
            # Without the shield, cancelling the caller would cancel the future that the batch resolves.
            return await asyncio.shield(pending.outcomes)
        finally:
            # A pending timer would keep the requests in memory until the timeout.
            timer.cancel()

    def environment(self) -> Environment:
        """Return the environment of a decision at the present time."""
        return Environment(self.clock(), self.draw, self.new_id)

    async def close(self) -> None:
        """Accept no more requests, and answer those that wait."""
        self.closed = True
        # Requests that were submitted in this iteration of the loop have not been started yet.
        self._start()
        while self.in_flight:
            await asyncio.wait(list(self.in_flight))
        await self.claims.close()
        # After the batches, whose requests count as heartbeats.
        await self.heartbeats.close()
        await self.context.json_schemas.close()
        await self.context.templates.close()
        await self.context.sender.close()
        await self.context.calendar.close()
        await self.context.scheduler_calendar.close()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting and self._can_start(loop.time()):
            batch = self._next_batch()
            # All waiting requests concern runs of running batches; the end of those starts the next batch.
            if not batch:
                return
            keys = frozenset[object]().union(*(pending.keys for pending in batch))
            # A batch serves many requests, so it must not inherit the context of the request that starts it.
            task = loop.create_task(self._execute(batch), context=Context())
            self.in_flight[task] = RunningBatch(keys, loop.time() + SLOW_BATCH_SECONDS)
            # If the running batch waits for a lock, no other event starts the next one.
            if self.max_running > 1:
                loop.call_later(SLOW_BATCH_SECONDS, self._start)

    def _can_start(self, now: float) -> bool:
        """Return whether a batch may start. Few requests wait for the running batch: large batches are cheaper."""
        if not self.in_flight:
            return True
        if len(self.in_flight) >= self.max_running:
            return False
        if all(each.slow_from <= now for each in self.in_flight.values()):
            return True
        return sum(len(pending.requests) for pending in self.waiting) >= FULL_BATCH

    def _next_batch(self) -> list[PendingRequests]:
        """Return and remove waiting requests. Requests for runs of a running batch or of earlier requests must wait."""
        busy = set[object]().union(*(each.keys for each in self.in_flight.values()))
        batch, postponed, size = list[PendingRequests](), deque[PendingRequests](), 0
        for pending in self.waiting:
            # Requests that were submitted together share a transaction, so they are never split.
            if size >= REQUESTS_A_BATCH or not busy.isdisjoint(pending.keys):
                # Later requests for the same runs must not overtake these.
                postponed.append(pending)
                busy |= pending.keys
            else:
                batch.append(pending)
                size += len(pending.requests)
        self.waiting = postponed
        return batch

    async def _execute(self, batch: list[PendingRequests]) -> None:
        """Execute a batch and resolve its futures. The next batch starts before that, to keep the database busy."""
        try:
            outcomes = await self._outcomes([request for pending in batch for request in pending.requests])
        finally:
            self.in_flight.pop(cast("asyncio.Task[None]", asyncio.current_task()))
            self._start()
        self._answer(batch, outcomes)

    async def _outcomes(self, requests: Sequence[Request]) -> list[Outcome]:
        try:
            return await self._try_repeatedly(requests)
        except Exception as error:
            return await self._isolate_failures(requests, error)

    def _answer(self, batch: Sequence[PendingRequests], outcomes: list[Outcome]) -> None:
        position = 0
        for pending in batch:
            _resolve(pending, outcomes[position : position + len(pending.requests)])
            position += len(pending.requests)
        self.on_outcomes(outcomes)

    async def _isolate_failures(self, requests: Sequence[Request], error: Exception) -> list[Outcome]:
        """Execute one request at a time, so that a request that keeps failing fails alone.

        If the database is unreachable, or if it is unknown whether the requests were carried out, all of them fail.
        """
        outcomes: list[Outcome] = []
        # A single request has failed alone already.
        for request in requests if len(requests) > 1 else ():
            # A lost database is not tried again for each request. After a Timeout, they may be committed already.
            if concerns_all(error):
                break
            try:
                outcomes += await self._try_repeatedly([request])
            except Exception as failure:
                outcomes.append(_failure(failure))
                error = failure
        return outcomes + [_failure(error)] * (len(requests) - len(outcomes))

    async def _try_repeatedly(self, requests: Sequence[Request]) -> list[Outcome]:
        """Retry a batch until it is committed or fails for a permanent reason.

        An attempt that failed during COMMIT may have been committed. The next attempt looks for its states once it
        holds the locks, because they cannot appear after that. If no attempt gets that far, the outcome is Timeout.
        """
        attempts: list[Attempt] = []
        while True:
            attempts.append(Attempt())
            try:
                return await self._attempt(requests, attempts)
            except Exception as error:
                # What is committed must not be executed again, so an exception of a callback cannot start a retry.
                if attempts[-1].is_committed and attempts[-1].outcomes is not None:
                    log.exception("a batch was committed, and a callback failed after it")
                    return attempts[-1].outcomes
                attempts[-1].is_undone = failure_of(error).is_answered
                if len(attempts) == TRIES or not is_retried(error):
                    # Any other error would tell the client that nothing was written.
                    raise _doubtful(attempts) or error from None
                log.info("a batch is retried", attempt=len(attempts), reason=reason(error)[:200])
                # A conflict is over at once; a lost database needs time to return.
                await asyncio.sleep(self.first_pause_seconds * 4 ** (len(attempts) - 1) if needs_pause(error) else 0)

    async def _attempt(self, requests: Sequence[Request], attempts: Sequence[Attempt]) -> list[Outcome]:
        # A retry has its own time, because it can begin much later.
        environment = self.environment()
        *earlier, attempt = attempts
        outcomes = await orchestrate(self.database.batches, requests, environment, attempt=attempt, earlier=earlier)
        # Written together later, so that the batch itself writes nothing for heartbeats.
        self.heartbeats.note(attempt.heard)
        return outcomes


def needs_pause(error: Exception) -> bool:
    """Return whether a retry needs another connection, which may take a while."""
    return failure_of(error).kind in RETRIED_AFTER_PAUSE


def is_retried(error: Exception) -> bool:
    """Return whether the same batch may succeed within seconds."""
    # A constraint can only be violated by a race with another transaction, whose result the retry sees.
    return needs_pause(error) or isinstance(error, IntegrityError) or failure_of(error).kind is Kind.CONFLICT


def concerns_all(error: Exception) -> bool:
    """Return whether a failure is not that of a single request, or if it is unknown what was committed."""
    failure = failure_of(error)
    return isinstance(error, Timeout) or (failure.is_temporary and failure.kind is not Kind.CONFLICT)


def _doubtful(attempts: Sequence[Attempt]) -> Timeout | None:
    return Timeout() if any(attempt.is_doubtful for attempt in attempts) else None


def _failure(error: Exception) -> Exception:
    return as_answer(error) or error


def _time_out(pending: PendingRequests) -> None:
    # The timer can fire after the result is set, before the caller has been woken up.
    if not pending.outcomes.done():
        pending.outcomes.set_exception(Timeout())


def _resolve(pending: PendingRequests, outcomes: list[Outcome]) -> None:
    # The caller may have been answered with Timeout.
    if not pending.outcomes.done():
        pending.outcomes.set_result(outcomes)


def _keys(request: Request) -> list[object]:
    """Return the keys that two running batches must not share."""
    if isinstance(request, RecordState):
        return [unique_key(request.run), request.run.id]
    if isinstance(request, CreateRun):
        # Two creations with the same unique key concern one run, although their new ids differ.
        return [unique_key(request.run)]
    return [request.run_id]
