"""Many clients with slow queries; proposals, health checks and other queries are answered meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import httpx

from tests.client import Ask
from tests.graphql.mutations import make_flow_run, propose
from tests.hostile.watching import base_of, watched
from tests.serving import Serve

READERS = 40
FIND = "query($where: FlowRunWhere) { flowRuns(where: $where) { nodes { id } } }"
LISTS = [[number] for number in range(30_000)]
"""Lists in a list, which SQLite compares pairwise."""
OTHERS = [[float(number)] for number in range(29_500, 30_000)]


@asynccontextmanager
async def slow_reads(kind: str, url: str, ask: Ask) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield a slow query: on PostgreSQL it waits for a lock, on SQLite it is expensive."""
    if kind == "sqlite":
        await make_flow_run(ask, parameters={"items": LISTS})
        yield FIND, {"where": {"parameters": {"path": ["items"], "contains": OTHERS}}}
        return
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE variable")
            yield "{ variables { nodes { id } } }", {}
    finally:
        await connection.close()


async def keep_reading(client: httpx.AsyncClient, request: dict[str, Any], answers: list[httpx.Response]) -> None:
    """Send a query repeatedly."""
    while True:
        answers.append(await client.post("/graphql", json=request))


async def test_slow_readers_delay_no_proposal_and_no_health_check(kind: str, url: str, serve: Serve) -> None:
    server, answers = await serve(), list[httpx.Response]()
    limits = httpx.Limits(max_connections=2 * READERS)
    async with (
        httpx.AsyncClient(base_url=base_of(server), timeout=60) as client,
        httpx.AsyncClient(base_url=base_of(server), timeout=60, limits=limits) as hostile,
        slow_reads(kind, url, Ask(client)) as (document, variables),
    ):
        ask = Ask(client)
        run = await make_flow_run(ask, state={"type": "RUNNING"})
        request = {"query": document, "variables": variables}
        readers = [asyncio.create_task(keep_reading(hostile, request, answers)) for _ in range(READERS)]
        async with watched(server, path="/readyz") as watch, asyncio.timeout(60):
            took = []
            while len(answers) < READERS:
                began = time.monotonic()
                assert (await propose(ask, run, "RUNNING"))["status"] == "ACCEPT"
                took.append(time.monotonic() - began)
            assert (await ask("{ flows { totalCount } }"))["flows"]["totalCount"] == 1
        for reader in readers:
            reader.cancel()
        for reader in readers:
            with suppress(asyncio.CancelledError):
                await reader

    refused = [answer for answer in answers if "OVERLOADED" in answer.text]
    assert len(refused) >= READERS // 2
    assert {answer.headers.get("Retry-After") for answer in refused} == {"1"}
    assert set(watch.statuses) == {200}
    assert watch.slowest < 2
    assert max(took) < 2
    assert sorted(took)[len(took) // 2] < 0.2
