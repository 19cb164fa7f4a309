"""Limits under load on PostgreSQL: two batchers, many clients, and never more slots held than exist."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from uuid_utils.compat import uuid7

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Answer, CreateRun, Outcome
from runstate.core.states import State, pending
from runstate.database import Database
from runstate.documents.decisions import OrchestrationStatus
from runstate.documents.policies import FlowRunPolicy, TaskRunPolicy
from runstate.documents.states import StateType
from runstate.rows import ConcurrencyLimit, Deployment, Flow, FlowRun, TaskRun
from tests.core.audit import Run, audit, most_at_once
from tests.core.factories import THOROUGH, deployment, flow_run, limit, task_run
from tests.core.store_in_memory import proposal
from tests.core.stored import flow, put
from tests.databases import ended

S = StateType
CLIENTS = 32
PROPOSALS = 200 if THOROUGH else 15
KINDS = [S.RUNNING] * 4 + [S.PENDING] * 2 + [S.COMPLETED, S.FAILED, S.CANCELLING, S.CANCELLED, S.SCHEDULED, S.PAUSED]
EXCEEDED = sa.text(
    'SELECT count(*) FROM concurrency_limit WHERE occupied > "limit" OR occupied <>'
    " (SELECT coalesce(sum(slots), 0) FROM concurrency_lease WHERE limit_id = concurrency_limit.id)"
)


@pytest.fixture
async def database(postgresql_url: str) -> AsyncIterator[Database]:
    """Yield a database with connections of its own to the URL of the batchers."""
    database = Database(postgresql_url)
    yield database
    await database.close()


class Field:
    """Runs that compete for the slots of a deployment and of tags."""

    def __init__(self) -> None:
        self.flow: Flow = flow()
        self.limits: list[ConcurrencyLimit] = [limit(3), limit(2, name="tag:a"), limit(4, name="tag:b")]
        self.deployment: Deployment = deployment(self.limits[0], flow_id=self.flow.id)
        retried = FlowRunPolicy(retries=1)
        self.parent = flow_run(flow_id=self.flow.id)
        deployed = [self.flow_run(policy=retried) for _ in range(12)]
        stands_for = [self.task_run("a", flow_run_id=self.parent.id) for _ in range(3)]
        subflows = [self.flow_run(parent_task_run_id=each.id) for each in stands_for]
        tags = [("a",), ("b",), ("a", "b")]
        tasks = [self.task_run(*tags[each % 3], flow_run_id=self.parent.id if each % 2 else None) for each in range(24)]
        self.runs: list[Run] = [self.parent, *deployed, *subflows, *tasks]
        self.mirrors = stands_for

    def flow_run(self, **columns: Any) -> FlowRun:
        """Return a run of the deployment."""
        return flow_run(flow_id=self.flow.id, deployment_id=self.deployment.id, **columns)

    def task_run(self, *tags: str, **columns: Any) -> TaskRun:
        """Return a task run with tags."""
        return task_run(tags=list(tags), policy=TaskRunPolicy(retries=2), **columns)

    @property
    def rows(self) -> list[Any]:
        """Rows to insert first."""
        return [self.flow, *self.limits, self.deployment, *self.runs, *self.mirrors]

    def with_slots_of(self, number: int) -> list[Run]:
        """Return the runs of a limit."""
        if number == 0:
            return [run for run in self.runs if isinstance(run, FlowRun) and run.deployment_id]
        tag = self.limits[number].name.removeprefix("tag:")
        return [run for run in self.runs if isinstance(run, TaskRun) and tag in run.tags]


class Client:
    """A client that proposes random states and keeps the answers."""

    def __init__(self, number: int, batcher: Batcher, field: Field) -> None:
        self.chance, self.batcher, self.field = Random(number), batcher, field
        self.outcomes: list[Outcome] = []

    async def work(self) -> None:
        """Propose states for random runs, some in one submission, and create runs."""
        for _ in range(PROPOSALS):
            requests = [self.request() for _ in range(self.chance.choice([1, 1, 1, 2, 4]))]
            self.outcomes += await self.batcher.submit(requests)

    def request(self) -> Any:
        """Return a proposal, or sometimes the creation of a run that other clients create too."""
        if self.chance.random() < 0.05:
            key = str(self.chance.randrange(5))
            return CreateRun(run=self.field.flow_run(idempotency_key=key), state=State(type=S.SCHEDULED))
        run = self.chance.choice(self.field.runs)
        kind = S.RUNNING if run is self.field.parent else self.chance.choice(KINDS)
        return proposal(run, pending(name="Submitting") if kind is S.PENDING else State(type=kind))


@asynccontextmanager
async def open_batcher(url: str) -> AsyncIterator[Batcher]:
    """Yield a batcher with a database of its own."""
    database = Database(url)
    batcher = Batcher(database, clock=lambda: datetime.now(UTC), draw=Random(0).random, new_id=uuid7)
    yield batcher
    await batcher.close()
    await database.close()


async def watch(database: Database, done: asyncio.Event) -> list[int]:
    """Return, for each check until the end, the number of limits that were exceeded or disagreed with their leases."""
    seen = list[int]()
    async with database.read() as connection:
        while not done.is_set():
            seen.append((await connection.execute(EXCEEDED)).scalar_one())
    return seen


async def deadlocks(database: Database) -> int:
    """Return the number of deadlocks that PostgreSQL counted."""
    counted = sa.text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    async with database.read() as connection:
        return int((await connection.execute(counted)).scalar_one())


async def test_concurrent_clients_exceed_no_limit(postgresql_url: str, database: Database) -> None:
    field, done = Field(), asyncio.Event()
    await put(database, *field.rows)
    async with open_batcher(postgresql_url) as one, open_batcher(postgresql_url) as two:
        clients = [Client(number, (one, two)[number % 2], field) for number in range(CLIENTS)]
        rolled_back = [ended(batcher.database, "ROLLBACK") for batcher in (one, two)]
        watching = asyncio.ensure_future(watch(database, done))
        await asyncio.gather(*(client.work() for client in clients))
        done.set()
        seen = await watching
    outcomes = [outcome for client in clients for outcome in client.outcomes]

    assert [outcome for outcome in outcomes if isinstance(outcome, Exception)] == []
    assert {outcome.status for outcome in outcomes if isinstance(outcome, Answer)} == set(OrchestrationStatus)
    assert set(seen) == {0}
    await audit(database, [*field.runs, *field.mirrors], field.limits)
    assert rolled_back == [[], []]
    assert await deadlocks(database) == 0


async def test_the_log_shows_that_no_limit_was_exceeded(postgresql_url: str, database: Database) -> None:
    field = Field()
    await put(database, *field.rows)
    async with open_batcher(postgresql_url) as one, open_batcher(postgresql_url) as two:
        clients = [Client(number + CLIENTS, (one, two)[number % 2], field) for number in range(CLIENTS)]
        await asyncio.gather(*(client.work() for client in clients))

    for number, limited in enumerate(field.limits):
        assert await most_at_once(database, field.with_slots_of(number)) == limited.limit
