"""What is measured below the API: of batches, services and the feed as it happens, of everything else now and then."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Answer, Created, Outcome
from runstate.database import Database
from runstate.feed import Hub
from runstate.feed.loop import repeat
from runstate.graphql.execution.fallbacks import FallbackReason
from runstate.graphql.execution.operation import Schema
from runstate.metrics import Metrics
from runstate.rows import Transition

EVERY_SECONDS: Final = 2.0


class Meter:
    """Keeps the figures of one process up to date."""

    schema: Schema

    def __init__(self, metrics: Metrics, clock: Callable[[], datetime]) -> None:
        self.metrics = metrics
        self.clock = clock
        self.counted: dict[str, int] = {}
        self.look: Callable[[], None] = lambda: None
        """Brings up to date what is not told as it happens."""
        self.task: asyncio.Task[None] | None = None

    def start(self, database: Database, hub: Hub[Transition], batcher: Batcher) -> None:
        """Look whenever it is asked; and now and then where workers answer for each other."""
        self.look = lambda: self._look(database, hub, batcher)
        if self.metrics.shared:
            again = repeat(self._update, name="metrics", pause_seconds=EVERY_SECONDS, retry_seconds=EVERY_SECONDS)
            self.task = asyncio.create_task(again)

    async def stop(self) -> None:
        """Look no more."""
        self.look = lambda: None
        if self.task:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task

    async def exposed(self, _: Request) -> Response:
        """All figures as they are now, in the form that Prometheus reads."""
        self.look()
        content, media_type = self.metrics.exposition()
        return Response(content, media_type=media_type)

    def observe(self, schema: Schema) -> None:
        """Measure how documents are validated, and count fallbacks of plans."""
        self.schema = schema
        schema.documents.timed = lambda phase, seconds: self.metrics.phases.labels(phase).observe(seconds)

    def batch(self, outcomes: Sequence[Outcome]) -> None:
        """A batch was answered."""
        self.metrics.batches.inc()
        self.metrics.batch_size.observe(len(outcomes))
        for outcome in outcomes:
            if isinstance(outcome, Answer):
                self.metrics.verdicts.labels(outcome.status.value.lower()).inc()
            elif not isinstance(outcome, Created):
                self.metrics.verdicts.labels("problem").inc()

    def delivered(self, entry: Transition) -> None:
        """Measure the delay of a transition that a subscriber takes from its buffer."""
        self.metrics.lag.observe((self.clock() - entry.occurred).total_seconds())

    def round(self, service: str, done: int | None) -> None:
        """A service ended a round; None: it failed."""
        self.metrics.rounds.labels(service, "failed" if done is None else "ok").inc()
        if done is not None:
            self.metrics.done.labels(service).inc(done)
            self.metrics.last_round.labels(service).set(self.clock().timestamp())

    def _look(self, database: Database, hub: Hub[Transition], batcher: Batcher) -> None:
        cached = self.schema.documents
        self._count("hit", self.metrics.documents.labels("hit"), cached.hits)
        self._count("miss", self.metrics.documents.labels("miss"), cached.misses)
        for reason in FallbackReason:
            fallbacks = self.schema.plan_cache.fallbacks.counts[reason]
            self._count(f"fallback: {reason}", self.metrics.fallbacks.labels(reason.value), fallbacks)
        self.metrics.feed_age.set(hub.age)
        self.metrics.waiting.set(sum(len(ticket.requests) for ticket in batcher.waiting))
        self.metrics.under_way.set(len(batcher.in_flight))
        self._count("statements", self.metrics.statements, database.statements)
        idle = len(database.connections.kept) if database.connections else 0
        for name, pool in pools(database).items():
            self.metrics.pool_size.labels(name).set(pool.size())
            self.metrics.pool_used.labels(name).set(pool.checkedout() - idle)

    def _count(self, name: str, counter: Any, total: int) -> None:
        """Have a counter follow what is counted elsewhere."""
        counter.inc(total - self.counted.get(name, 0))
        self.counted[name] = total

    async def _update(self) -> None:
        self.look()


def pools(database: Database) -> dict[str, Any]:
    """The pools of connections, by what they are used for: on PostgreSQL there is one for everything."""
    if database.is_sqlite:
        return {"writer": database.writer.pool, "reader": database.reader.pool}
    return {"all": database.writer.pool}
