"""Gathers requests that arrive while a transaction is under way into the next one: group commit without a timer."""

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
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from runstate.core.batch.decide import Environment
from runstate.core.batch.orchestrate import Attempt, orchestrate, unique_key
from runstate.core.batch.requests import CreateRun, Outcome, Request
from runstate.core.context import CommandContext
from runstate.database import Database
from runstate.errors import Overloaded, RunstateError, Timeout, Unavailable

log = structlog.get_logger(__name__)

REQUESTS_A_BATCH = 200
BATCHES_AT_ONCE = 3
"""On PostgreSQL, of disjoint runs; SQLite has one writer."""
FULL_BATCH = 50
"""So many waiting requests are a batch of their own while another one is under way."""
SLOW_BATCH_SECONDS = 0.05
"""A batch that takes longer, waiting for somebody's lock, does not keep others waiting."""
TRIES = 5
FIRST_PAUSE_SECONDS = 0.05
RETRYABLE = frozenset({"40001", "40P01", "55P03"})
"""SQLSTATE of serialization failure, deadlock, lock not available."""
UNREACHABLE = ("08", "57P", "53300")
"""SQLSTATE of a connection that failed, of a server that starts, stops or ends connections, of too many connections."""
STATEMENT_TIMEOUT = "57014"


@dataclass(frozen=True, slots=True)
class RunningBatch:
    """What a batch touches, and when it is no longer expected to end in a moment, by the loop's clock."""

    keys: frozenset[object]
    long_from: float


@dataclass(eq=False, slots=True)
class PendingRequests:
    """Requests that stay together and in order, and who waits for their answers."""

    requests: Sequence[Request]
    answered: asyncio.Future[list[Outcome]]
    keys: frozenset[object] = field(default_factory=frozenset)


class Batcher:
    """Where every request for a state or a run is handed in. One batch answers all that wait when it starts."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime],
        draw: Callable[[], float],
        new_id: Callable[[], UUID],
        capacity: int = 10_000,
        patience_seconds: float = 30,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self.context = CommandContext(database, clock, new_id, draw)
        self.database = database
        self.clock, self.draw, self.new_id = clock, draw, new_id
        self.answered: Callable[[Sequence[Outcome]], None] = lambda _: None
        """Called with the answers of each batch."""
        self.capacity, self.patience_seconds = capacity, patience_seconds
        self.first_pause_seconds = first_pause_seconds
        self.waiting: deque[PendingRequests] = deque()
        self.in_flight: dict[asyncio.Task[None], RunningBatch] = {}
        self.max_running = 1 if database.is_sqlite else BATCHES_AT_ONCE
        self.closed = False

    async def submit(self, requests: Sequence[Request]) -> list[Outcome]:
        """An answer for each request, in order. They are decided together, as if made one after another.

        Raises Overloaded when too much waits already, Timeout when no answer comes in time: then they may have been
        carried out. A caller that goes away does not stop what it asked for.
        """
        if self.closed or len(self.waiting) >= self.capacity:
            raise Overloaded
        loop = asyncio.get_running_loop()
        keys = frozenset(key for request in requests for key in _keys(request))
        ticket = PendingRequests(requests, loop.create_future(), keys)
        self.waiting.append(ticket)
        loop.call_soon(self._start)  # once everybody who is at the door has handed in
        patience = loop.call_later(self.patience_seconds, _time_out, ticket)
        try:
            return await asyncio.shield(ticket.answered)
        finally:
            patience.cancel()

    async def close(self) -> None:
        """Take no more requests, and answer those that wait."""
        self.closed = True
        self._start()
        while self.in_flight:
            await asyncio.wait(list(self.in_flight))
        await self.context.json_schemas.close()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting and self._can_start(loop.time()):
            batch = self._next_batch()
            if not batch:
                return
            keys = frozenset[object]().union(*(ticket.keys for ticket in batch))
            playing = self._execute(batch)
            task = loop.create_task(playing, context=Context())  # of many requests, not of this one
            self.in_flight[task] = RunningBatch(keys, loop.time() + SLOW_BATCH_SECONDS)
            if self.max_running > 1:
                loop.call_later(SLOW_BATCH_SECONDS, self._start)

    def _can_start(self, now: float) -> bool:
        """Whether a batch may start: few requests wait for the batch under way, since large batches cost least."""
        if not self.in_flight:
            return True
        if len(self.in_flight) >= self.max_running:
            return False
        if all(each.long_from <= now for each in self.in_flight.values()):
            return True
        return sum(len(ticket.requests) for ticket in self.waiting) >= FULL_BATCH

    def _next_batch(self) -> list[PendingRequests]:
        """The tickets that touch no run that a batch under way, or an earlier ticket that has to wait, touches."""
        busy = set[object]().union(*(each.keys for each in self.in_flight.values()))
        batch, kept, size = list[PendingRequests](), deque[PendingRequests](), 0
        for ticket in self.waiting:
            if size >= REQUESTS_A_BATCH or not busy.isdisjoint(ticket.keys):
                kept.append(ticket)
                busy |= ticket.keys
            else:
                batch.append(ticket)
                size += len(ticket.requests)
        self.waiting = kept
        return batch

    async def _execute(self, batch: list[PendingRequests]) -> None:
        """Play a batch and answer it; the next one starts first, so that the database works while this is told."""
        try:
            outcomes = await self._outcomes([request for ticket in batch for request in ticket.requests])
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
        for ticket in batch:
            _resolve(ticket, outcomes[position : position + len(ticket.requests)])
            position += len(ticket.requests)
        self.answered(outcomes)

    async def _isolate_failures(self, requests: Sequence[Request], error: Exception) -> list[Outcome]:
        """One request at a time, so that one that cannot be answered fails alone.

        Not where the database is away, nor where nobody knows what became of the requests: then all fail alike.
        """
        outcomes: list[Outcome] = []
        for request in requests if len(requests) > 1 else ():
            if is_lost(error) or isinstance(error, Timeout):
                break
            try:
                outcomes += await self._try_repeatedly([request])
            except Exception as failure:
                outcomes.append(_failure(failure))
                error = failure
        return outcomes + [_failure(error)] * (len(requests) - len(outcomes))

    async def _try_repeatedly(self, requests: Sequence[Request]) -> list[Outcome]:
        """Play a batch until it is committed, or fails for a reason that trying again does not mend.

        An attempt that failed while COMMIT was under way may have been kept: the next one looks for its states once it
        has the locks, when that cannot change any more. If no next one gets that far, the answer is Timeout.
        """
        attempts: list[Attempt] = []
        while True:
            attempts.append(Attempt())
            try:
                return await self._attempt(requests, attempts)
            except Exception as error:
                if attempts[-1].is_committed and attempts[-1].outcomes is not None:
                    log.exception("batch was committed and nobody was told")
                    return attempts[-1].outcomes
                if len(attempts) == TRIES or not is_passing(error):
                    raise _doubtful(attempts) or error from None
                log.info("batch is played again", attempt=len(attempts), error=str(error)[:200])
                await asyncio.sleep(self.first_pause_seconds * 4 ** (len(attempts) - 1) if is_lost(error) else 0)

    async def _attempt(self, requests: Sequence[Request], attempts: Sequence[Attempt]) -> list[Outcome]:
        environment = Environment(self.clock(), self.draw, self.new_id)
        *earlier, attempt = attempts
        return await orchestrate(self.database.batches, requests, environment, attempt=attempt, earlier=earlier)


def is_lost(error: Exception) -> bool:
    """Whether the connection to the database is gone, or could not be made."""
    return isinstance(error, OSError | PoolTimeout) or (
        isinstance(error, DBAPIError)
        and (error.connection_invalidated or (_sqlstate(error) or "").startswith(UNREACHABLE) or _is_busy(error))
    )


def is_passing(error: Exception) -> bool:
    """Whether the same batch may succeed when it is played again."""
    return is_lost(error) or isinstance(error, IntegrityError) or _sqlstate(error) in RETRYABLE


def _sqlstate(error: Exception) -> str | None:
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def _is_busy(error: Exception) -> bool:
    """Whether another process has been writing to the SQLite file for too long."""
    return getattr(getattr(error, "orig", None), "sqlite_errorname", None) == "SQLITE_BUSY"


def _doubtful(attempts: Sequence[Attempt]) -> Timeout | None:
    return Timeout() if any(attempt.is_doubtful for attempt in attempts) else None


def _failure(error: Exception) -> Exception:
    if isinstance(error, RunstateError):
        return error
    if _sqlstate(error) == STATEMENT_TIMEOUT:
        return Timeout()
    return Unavailable() if is_lost(error) else error


def _time_out(ticket: PendingRequests) -> None:
    if not ticket.answered.done():
        ticket.answered.set_exception(Timeout())


def _resolve(ticket: PendingRequests, outcomes: list[Outcome]) -> None:
    if not ticket.answered.done():
        ticket.answered.set_result(outcomes)


def _keys(request: Request) -> list[object]:
    """What two batches under way must not both touch."""
    if isinstance(request, CreateRun):
        return [unique_key(request.run)]
    return [request.run_id]
