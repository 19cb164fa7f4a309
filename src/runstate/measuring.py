"""Measurement of batches, services and the feed as they work, and of pools, queues and caches at intervals."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Answer, Created, Outcome, Recorded
from runstate.database import Database
from runstate.feed import Hub
from runstate.feed.loop import repeat
from runstate.graphql.execution.fallbacks import FallbackReason
from runstate.graphql.execution.operation import Schema
from runstate.metrics import Metrics
from runstate.rows import Transition

EVERY_SECONDS: Final = 2.0
"""Seconds between two updates with several workers."""
MOST_UNSERVED: Final = 100
"""Requests to paths that are not served that have a counter of their own."""


class Meter:
    """Updates the metrics of one process."""

    schema: Schema

    def __init__(self, metrics: Metrics, clock: Callable[[], datetime]) -> None:
        self.metrics = metrics
        self.clock = clock
        self.counted: dict[str, int] = {}
        self.unserved_requests: set[str] = set()
        self.look: Callable[[], None] = lambda: None
        """Updates the metrics that are read at intervals."""
        self.task: asyncio.Task[None] | None = None

    def start(self, database: Database, hub: Hub[Transition], batcher: Batcher) -> None:
        """Update metrics at each scrape; with several workers also at intervals, because one answers for all."""
        self.look = lambda: self._update(database, hub, batcher)
        if self.metrics.shared:
            again = repeat(self._update_again, name="metrics", pause_seconds=EVERY_SECONDS, retry_seconds=EVERY_SECONDS)
            self.task = asyncio.create_task(again)

    async def stop(self) -> None:
        """Stop updating metrics."""
        # A scrape can still arrive while the database is being closed.
        self.look = lambda: None
        if self.task:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task

    async def exposed(self, _: Request) -> Response:
        """Answer with all current metrics in the format of Prometheus."""
        self.look()
        content, media_type = self.metrics.exposition()
        return Response(content, media_type=media_type)

    def observe(self, schema: Schema) -> Schema:
        """Measure the parsing and validation of documents, and count fallbacks of plans; return the schema."""
        self.schema = schema
        schema.documents.timed = lambda phase, seconds: self.metrics.phases.labels(phase).observe(seconds)
        return schema

    def batch(self, outcomes: Sequence[Outcome]) -> None:
        """Count a batch that was answered, and its verdicts."""
        self.metrics.batches.inc()
        self.metrics.batch_size.observe(len(outcomes))
        for outcome in outcomes:
            if isinstance(outcome, Answer):
                self.metrics.verdicts.labels(outcome.status.value.lower()).inc()
            elif isinstance(outcome, Recorded):
                self.metrics.verdicts.labels("recorded").inc()
            elif not isinstance(outcome, Created):
                self.metrics.verdicts.labels("problem").inc()

    def delivered(self, entry: Transition) -> None:
        """Measure the delay of a transition until a subscriber reads it from its buffer."""
        self.metrics.lag.observe((self.clock() - entry.occurred).total_seconds())

    def round(self, service: str, done: int | None) -> None:
        """Count a round of a service and the rows or runs that it changed; None if the round failed."""
        self.metrics.rounds.labels(service, "failed" if done is None else "ok").inc()
        if done is not None:
            self.metrics.done.labels(service).inc(done)
            self.metrics.last_round.labels(service).set(self.clock().timestamp())

    def prefect(self, method: str, path: str, status: int) -> None:
        """Count a request of a client of Prefect."""
        self.metrics.prefect.labels(method, path, status).inc()

    def unserved(self, request: str) -> None:
        """Count a request of a client of Prefect to a path that is not served. Only so many are told apart."""
        if len(self.unserved_requests) < MOST_UNSERVED:
            self.unserved_requests.add(request)
        self.metrics.unserved.labels(request if request in self.unserved_requests else "other").inc()

    def dropped(self, reason: str) -> None:
        """Count an event of a client of Prefect that was dropped."""
        self.metrics.dropped.labels(reason).inc()

    def _update(self, database: Database, hub: Hub[Transition], batcher: Batcher) -> None:
        cached = self.schema.documents
        self._raise_to("hit", self.metrics.documents.labels("hit"), cached.hits)
        self._raise_to("miss", self.metrics.documents.labels("miss"), cached.misses)
        for reason in FallbackReason:
            fallbacks = self.schema.plan_cache.fallbacks.counts[reason]
            self._raise_to(f"fallback: {reason}", self.metrics.fallbacks.labels(reason.value), fallbacks)
        self.metrics.feed_age.set(hub.age)
        self.metrics.waiting.set(sum(len(ticket.requests) for ticket in batcher.waiting))
        self.metrics.under_way.set(len(batcher.in_flight))
        self._raise_to("statements", self.metrics.statements, database.statements)
        # Idle connections that are kept outside of the pool count as checked out.
        idle = len(database.connections.kept) if database.connections else 0
        for name, pool in pools(database).items():
            self.metrics.pool_size.labels(name).set(pool.size())
            self.metrics.pool_used.labels(name).set(pool.checkedout() - idle)

    def _raise_to(self, name: str, counter: Any, total: int) -> None:
        """Raise a counter to a total that is counted elsewhere: counters of Prometheus can only be incremented."""
        counter.inc(total - self.counted.get(name, 0))
        self.counted[name] = total

    async def _update_again(self) -> None:
        self.look()


def pools(database: Database) -> dict[str, Any]:
    """Return the connection pools by name: writer and reader on SQLite, a single one on PostgreSQL."""
    if database.is_sqlite:
        return {"writer": database.writer.pool, "reader": database.reader.pool}
    return {"all": database.writer.pool}
