"""Claims of eight workers on one pool, over HTTP.

    python -m benchmarks.claims --database-kind postgresql --runs 31000

Starts a server on loopback with a new database and creates due runs of a pool. Workers then claim ten runs at a time:
first at a fixed rate of 1,000 runs a second, then as fast as they can. Prints runs a second, latencies, and the number
of runs that were given twice. At the end workers wait by `workAvailable`, and the transactions of PostgreSQL are
counted with and without them.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import random
from typing import Annotated, Any
from uuid import UUID

import orjson
import sqlalchemy as sa
import typer
import uvloop
import websockets
from sqlalchemy.ext.asyncio import create_async_engine
from uuid_utils.compat import uuid7

from benchmarks.databases import database
from benchmarks.http_client import Client, serving
from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import CreateRun
from runstate.core.commands.crud import new_columns
from runstate.core.commands.flow_runs import NEW_FLOW_RUN, CreateFlowRun
from runstate.database import Database
from runstate.rows import FlowRun

WORKERS = 8
A_CLAIM = 10
RATE = 1000
"""Runs a second that workers ask for at a fixed rate."""
SECONDS = 10
PROTOCOL: Any = ["graphql-transport-ws"]
IDLE_SECONDS = 35
IDLE_WORKERS = 100
LIMIT = """mutation($limit: Int) { createWorkPool(input: {name: "bench", concurrencyLimit: $limit}) { __typename } }"""
DEPLOY = """mutation { deployFlow(input: {
  flow: {name: "bench"}, name: "nightly", createFlow: true, workPool: "bench"}) {
  ... on CreateDeploymentPayload { deployment { id flowId workQueueId } } } }"""
CLAIM = """mutation($worker: String!) { it: claimFlowRuns(input: {
  workPool: "bench", worker: $worker, first: 10, leaseSeconds: 600}) {
  __typename ... on ClaimFlowRunsPayload { claims { id expires flowRun { id name parameters deploymentId } } } } }"""
IDLE = 'subscription { workAvailable(workPool: "bench") { due nextDue } }'
Kind = Annotated[str, typer.Option(help="`sqlite` or `postgresql`.")]
Runs = Annotated[int, typer.Option(help="Number of due runs.")]
Limit = Annotated[int | None, typer.Option(help="Concurrency limit of the pool.")]


async def create_runs(at: str, deployment: dict[str, Any], number: int) -> None:
    """Create due runs through a batcher of this process."""
    opened = Database(at)
    batcher = Batcher(opened, clock=lambda: datetime.now(UTC), draw=random, new_id=uuid7)
    due = datetime.now(UTC) - timedelta(hours=1)
    document = CreateFlowRun(flow_id=deployment["flowId"], deployment_id=deployment["id"], name="bench")
    common = new_columns(FlowRun, document) | NEW_FLOW_RUN | {"created": due, "updated": due}
    common |= {"work_queue_id": UUID(deployment["workQueueId"]), "work_queue_name": "default"}
    for start in range(0, number, 500):
        runs = [FlowRun.of(common | {"id": uuid7()}) for _ in range(min(500, number - start))]
        state = states.scheduled(due, due)
        await batcher.submit([CreateRun(run=run, state=state) for run in runs])
    await batcher.close()
    await opened.close()


async def work(url: str, name: str, pause: float, until: float) -> tuple[list[float], list[str]]:
    """Claim until a time, one claim in each pause; return latencies in seconds and ids of runs."""
    client, taken, runs, due = await Client.connect(url), list[float](), list[str](), time.perf_counter()
    while time.perf_counter() < until:
        began = time.perf_counter()
        claims = (await client.execute(CLAIM, worker=name))["it"]["claims"]
        taken.append(time.perf_counter() - began)
        runs += [claim["flowRun"]["id"] for claim in claims]
        if not claims:
            break
        due += pause
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    client.close()
    return taken, runs


def percentiles(seconds: Sequence[float]) -> str:
    """Return the median and the 99th percentile as text."""
    taken = sorted(each * 1000 for each in seconds)
    return f"p50 {taken[len(taken) // 2]:.1f} ms, p99 {taken[len(taken) * 99 // 100]:.1f} ms"


async def claim(url: str, what: str, pause: float) -> None:
    """Have workers claim for some seconds, and print a line."""
    began = time.perf_counter()
    # Workers do not ask at the same time: they start one after another.
    found = await asyncio.gather(*(_later(url, n, pause, began + SECONDS) for n in range(WORKERS)))
    seconds = time.perf_counter() - began
    taken, runs = [each for one, _ in found for each in one], [each for _, some in found for each in some]
    twice = len(runs) - len(set(runs))
    print(f"{what}: {len(runs) / seconds:.0f} runs/s, {percentiles(taken)}, given twice: {twice}")


async def _later(url: str, number: int, pause: float, until: float) -> tuple[list[float], list[str]]:
    await asyncio.sleep(pause * number / WORKERS)
    return await work(url, f"worker-{number}", pause, until)


@asynccontextmanager
async def waiting(url: str) -> AsyncIterator[None]:
    """Have many workers wait by subscription."""
    address = url.replace("http://", "ws://")
    async with websockets.connect(address, subprotocols=PROTOCOL) as socket:
        await socket.send('{"type": "connection_init"}')
        for number in range(IDLE_WORKERS):
            await socket.send(
                orjson.dumps({"type": "subscribe", "id": str(number), "payload": {"query": IDLE}}).decode()
            )
        await asyncio.sleep(5)
        yield


async def transactions(at: str) -> int:
    """Return the number of transactions of the database so far."""
    engine = create_async_engine(at)
    async with engine.connect() as connection:
        await connection.execute(sa.text("SELECT pg_stat_clear_snapshot()"))
        asked = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        found = (await connection.execute(sa.text(asked))).scalar_one()
    await engine.dispose()
    return int(found)


async def idle(url: str, at: str) -> None:
    """Print the transactions of a server without and with idle workers."""
    before = await transactions(at)
    await asyncio.sleep(IDLE_SECONDS)
    alone = await transactions(at) - before
    async with waiting(url):
        before = await transactions(at)
        await asyncio.sleep(IDLE_SECONDS)
        together = await transactions(at) - before
    print(f"transactions in {IDLE_SECONDS} s: {alone} without workers, {together} with {IDLE_WORKERS} idle workers")


async def measure(url: str, at: str, runs: int, limit: int | None) -> None:
    """Create the runs, claim them and print lines."""
    client = await Client.connect(url)
    await client.execute(LIMIT, limit=limit)
    deployment = (await client.execute(DEPLOY))["deployFlow"]["deployment"]
    client.close()
    if at.startswith("postgresql"):
        await idle(url, at)
    await create_runs(at, deployment, runs)
    await claim(url, f"at {RATE} runs/s", WORKERS * A_CLAIM / RATE)
    await claim(url, "as fast as they can", 0)


def main(database_kind: Kind = "sqlite", runs: Runs = 31_000, limit: Limit = None) -> None:
    """Measure one kind of database."""
    with tempfile.TemporaryDirectory() as folder, database(database_kind, Path(folder)) as at, serving(at) as (url, _):
        uvloop.run(measure(url, at, runs, limit))


if __name__ == "__main__":
    typer.run(main)
