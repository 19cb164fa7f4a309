"""CPU time of the server and of PostgreSQL while clients send heartbeats.

    python -m benchmarks.heartbeats --runs 1000 --interval 10

Each run sends a heartbeat in each interval: in requests of its own, or together with others. The server runs all its
services, so the baseline is measured without heartbeats first.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from benchmarks.bench import Place
from benchmarks.databases import postgresql
from benchmarks.http_client import Client, request, serving

CREATE_FLOW = """mutation { it: createFlow(input: {name: "bench"}) { ... on CreateFlowPayload { flow { id } } } }"""
CREATE_RUN = """mutation($input: CreateFlowRunInput!) { it: createFlowRun(input: $input) {
  ... on CreateFlowRunPayload { flowRun { id } } } }"""
HEARTBEAT = """mutation($runs: [RunRef!]!) { it: heartbeat(runs: $runs) {
  ... on HeartbeatPayload { runs { runId stateType } } ... on Problem { code message } } }"""
CONNECTIONS = 10

Runs = Annotated[int, typer.Option(help="Number of monitored runs.")]
Interval = Annotated[float, typer.Option(help="Seconds between two heartbeats of a run.")]
Seconds = Annotated[float, typer.Option(help="Duration of each measurement in seconds.")]
Which = Annotated[str, typer.Option(help="`sqlite`, `postgresql`, or both.")]


async def monitored(client: Client, runs: int, interval: float) -> list[str]:
    """Create RUNNING flow runs; return their ids."""
    flow = (await client.execute(CREATE_FLOW))["it"]["flow"]["id"]
    given = {"flowId": flow, "heartbeatSeconds": interval, "state": {"type": "RUNNING"}}
    return [(await client.execute(CREATE_RUN, input=given))["it"]["flowRun"]["id"] for _ in range(runs)]


async def beat(client: Client, runs: list[list[str]], interval: float, until: float) -> int:
    """Send a heartbeat for each group of runs in each interval, evenly spread; return the number of requests."""
    sent = 0
    documents = [request(HEARTBEAT, runs=[{"flowRunId": run} for run in group]) for group in runs]
    began = time.monotonic()
    while time.monotonic() < until:
        due = began + sent * interval / len(runs)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        answer = await client.post(documents[sent % len(runs)])
        if b'"RUNNING"' not in answer:
            raise RuntimeError(answer[:300])
        sent += 1
    return sent


async def measure(place: Place, name: str, runs: int, interval: float, seconds: float) -> None:
    """Measure both kinds of requests, and the server without requests."""
    ids: list[str] = []
    for size in (0, 1, 100):
        if size and not ids:
            client = await Client.connect(place.url)
            ids = await monitored(client, runs, interval)
            client.close()
        groups = [ids[first : first + size] for first in range(0, runs, size)] if size else []
        connections = min(CONNECTIONS, len(groups))
        clients = [await Client.connect(place.url) for _ in range(connections)]
        async with place.timed() as timed:
            until = time.monotonic() + seconds
            shares = [beat(each, groups[first::connections], interval, until) for first, each in enumerate(clients)]
            sent = sum(await asyncio.gather(*shares))
            await asyncio.sleep(until - time.monotonic())
        what = f"{runs} runs, {size} in a request" if size else "no heartbeats"
        print(
            f"| {name}: {what} | {sent / timed.seconds:.1f} | {timed.server / timed.seconds:.2%}"
            f" | {timed.database / timed.seconds:.2%} |",
            flush=True,
        )
        for each in clients:
            each.close()


def main(
    runs: Runs = 1000, interval: Interval = 10, seconds: Seconds = 20, database: Which = "sqlite,postgresql"
) -> None:
    """Measure heartbeats and print a table."""
    print("| heartbeats | requests per second | server, of a core | database, of a core |")
    print("| --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if "sqlite" in database:
            url = f"sqlite+aiosqlite:///{folder}/bench.db"
            with serving(url, RUNSTATE_SERVICES="all") as (address, server):
                uvloop.run(measure(Place(address, url, server, None), "SQLite", runs, interval, seconds))
        if "postgresql" in database:
            with (
                postgresql(Path(folder) / "postgresql") as (url, database_server),
                serving(url, RUNSTATE_SERVICES="all") as (address, server),
            ):
                place = Place(address, url, server, database_server)
                uvloop.run(measure(place, "PostgreSQL", runs, interval, seconds))


if __name__ == "__main__":
    typer.run(main)
