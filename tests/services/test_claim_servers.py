"""Many workers on two servers, one of which is killed: each run has one holder at a time, and no limit is exceeded.

With RUNSTATE_THOROUGH, 32 workers claim 20,000 runs.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from signal import SIGKILL
from typing import Any
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa

from runstate.core.checks.verify import verify
from runstate.database import Database
from runstate.database.failures import is_temporary
from runstate.rows import FlowRun, FlowRunState, WorkQueue
from tests.client import Ask
from tests.core.factories import THOROUGH
from tests.graphql.mutations import make_deployment, make_flow
from tests.graphql.test_claims import claim, renew
from tests.graphql.test_work_pools import change, make_pool, make_queue
from tests.serving import Serve, Server

SERVICES = {"RUNSTATE_SERVICES": "claim-expiry", "RUNSTATE_SERVICE_INTERVALS": '{"claim-expiry": 0.5}'}
RUNS, WORKERS = (20_000, 32) if THOROUGH else (200, 12)
MOST_SECONDS = 60 + RUNS / 20
POOL_LIMIT = 40
LIMITS = {"default": 25, "second": 8}
LOST = (httpx.HTTPError, AssertionError)
"""Errors of a client whose server is killed."""
WINDOW = """mutation($input: ScheduleDeploymentInput!) { scheduleDeployment(input: $input) { __typename } }"""
PROPOSE = """mutation($inputs: [ProposeStateInput!]!) { it: proposeStates(inputs: $inputs) {
  ... on OrchestrationResult { status } } }"""


class Servers:
    """Two servers; requests to one that was killed are repeated on the other."""

    def __init__(self, *servers: Server) -> None:
        self.servers = list(servers)

    @asynccontextmanager
    async def client(self, number: int) -> AsyncIterator[Ask]:
        """Yield a client of one of the servers that live."""
        server = self.servers[number % len(self.servers)]
        async with httpx.AsyncClient(base_url=server.url.removesuffix("/graphql"), timeout=60) as client:
            yield Ask(client)

    async def kill(self) -> None:
        """Kill the second server."""
        await self.servers.pop().stop(SIGKILL)


async def work(servers: Servers, number: int, left: "Counter[str]", held: "Counter[str]") -> None:
    """Claim, start and complete runs until all are done. A request without an answer is repeated with its key."""
    key, given = str(uuid4()), dict[str, Any](first=3, leaseSeconds=600)
    while left["runs"] > 0:
        with suppress(*LOST):
            async with servers.client(number) as ask:
                while left["runs"] > 0:
                    claims = (await claim(ask, f"w{number}", idempotencyKey=key, **given))["claims"]
                    await complete(ask, claims, left, held)
                    key = str(uuid4())


async def complete(ask: Ask, claims: list[Any], left: "Counter[str]", held: "Counter[str]") -> None:
    """Start and complete claimed runs. The worker that completes a run is its only holder."""
    if not claims:
        await asyncio.sleep(0.01)
        return
    for state in ("RUNNING", "COMPLETED"):
        inputs = [
            {"run": {"flowRunId": each["flowRun"]["id"]}, "state": {"type": state}, "claimId": each["id"]}
            for each in claims
        ]
        answers = [each["status"] for each in (await ask(PROPOSE, inputs=inputs))["it"]]
        if state == "COMPLETED":
            completed = [each for each, status in zip(claims, answers, strict=True) if status == "ACCEPT"]
            held.update(each["flowRun"]["id"] for each in completed)
            left["runs"] -= len(completed)


async def watch(database: Database, left: "Counter[str]", seen: "Counter[str]") -> None:
    """Read how many runs hold slots of each queue, until all runs are done."""
    asked = (
        sa.select(WorkQueue.name, sa.func.count())
        .join(FlowRun, FlowRun.work_queue_id == WorkQueue.id)
        .where(FlowRun.state_type.in_(["PENDING", "RUNNING"]))
        .group_by(WorkQueue.name)
    )
    while left["runs"] > 0:
        try:
            async with database.read() as connection:
                used = {row[0]: row[1] for row in await connection.execute(asked)}
        except Exception as error:
            # A machine that is busy for long opens no connection in time.
            if not is_temporary(error):
                raise
            continue
        for name, number in {**used, "pool": sum(used.values())}.items():
            seen[name] = max(seen[name], number)
        await asyncio.sleep(0.005)


async def prepare(ask: Ask) -> None:
    """Create a pool with limits and its due runs."""
    pool = await make_pool(ask, concurrencyLimit=POOL_LIMIT)
    queues = (await ask('{ it: workPool(by: {name: "pool"}) { defaultQueue { id } } }'))["it"]
    await change(ask, "WorkQueue", "id", id=queues["defaultQueue"]["id"], concurrencyLimit=LIMITS["default"])
    await make_queue(ask, pool, "second", concurrencyLimit=LIMITS["second"])
    flow = await make_flow(ask)
    for name in LIMITS:
        schedule = {"slug": "s", "schedule": {"cron": {"cron": "* * * * *"}}}
        given = {"name": name, "workPool": "pool", "workQueueName": name, "schedules": [schedule]}
        deployment = await make_deployment(ask, flowId=flow, **given)
        for page in range(0, RUNS // 2, 1000):
            hours, number = page // 60, min(RUNS // 2 - page, 1000)
            since = datetime(2026, 1, 1 + hours // 24, hours % 24, page % 60, tzinfo=UTC)
            window = {"deploymentId": deployment, "since": since.isoformat(), "minRuns": number, "maxRuns": number}
            await ask(WINDOW, input=window)


@pytest.mark.timeout(MOST_SECONDS + 600)
@pytest.mark.parametrize("kind", ["postgresql"])
async def test_each_run_has_one_holder_while_a_server_is_killed(serve: Serve, url: str) -> None:
    servers = Servers(*await asyncio.gather(serve(**SERVICES), serve(**SERVICES)))
    async with servers.client(0) as ask:
        await prepare(ask)
        dead = (await claim(ask, "dead", first=5, leaseSeconds=10))["claims"]
    database = Database(url)
    left, held, seen = Counter(runs=RUNS), Counter[str](), Counter[str]()
    async with asyncio.timeout(MOST_SECONDS), asyncio.TaskGroup() as tasks:
        tasks.create_task(watch(database, left, seen))
        for number in range(WORKERS):
            tasks.create_task(work(servers, number, left, held))
        while left["runs"] > RUNS // 2:  # noqa: ASYNC110 the counter has no event
            await asyncio.sleep(0.01)
        await servers.kill()
    async with servers.client(0) as ask:
        lost = await renew(ask, *dead)

    assert (len(held), set(held.values())) == (RUNS, {1})
    assert {name: seen[name] <= limit for name, limit in {**LIMITS, "pool": POOL_LIMIT}.items()} == {
        "default": True,
        "second": True,
        "pool": True,
    }
    assert len(dead) == len(lost["lostIds"]) == 5
    assert await starts(database) == {each["flowRun"]["id"]: 2 for each in dead}
    assert await verify(database, datetime.now(UTC)) == []
    await database.close()


async def starts(database: Database) -> dict[str, int]:
    """Return the runs that entered PENDING more than once."""
    number = sa.func.count()
    counted = sa.select(FlowRunState.run_id, number).where(FlowRunState.type == "PENDING").group_by(FlowRunState.run_id)
    async with database.read() as connection:
        return {str(run): times for run, times in await connection.execute(counted.having(number > 1))}
