"""Throughput of each kind of work over HTTP, compared with the same work through the database driver alone.

    make bench
    python -m benchmarks.bench --database postgresql --only lifecycle --seconds 20
    python -m benchmarks.bench --reference http://127.0.0.1:4201/api  # the same on a running Prefect server

Starts a server on loopback for each database, and a PostgreSQL server unless RUNSTATE_TEST_POSTGRES_URL names one.
Server, database and client share the machine: compare figures of one run, as ratios.
"""

import asyncio
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from uuid import UUID, uuid4

import httpx
import psutil
import sqlalchemy as sa
import typer
import uvloop

from benchmarks import driver_baseline
from benchmarks.databases import postgresql
from benchmarks.http_client import Client, request, serving

STEPS = ("PENDING", "RUNNING", "COMPLETED")
PROBLEM = "... on Problem { code message }"
CREATE_FLOW = f"""mutation {{ it: createFlow(input: {{name: "bench"}}) {{
  ... on CreateFlowPayload {{ flow {{ id }} }} {PROBLEM} }} }}"""
CREATE_RUN = f"""mutation($flow: ID!) {{ it: createFlowRun(input: {{flowId: $flow, state: {{type: RUNNING}}}}) {{
  ... on CreateFlowRunPayload {{ flowRun {{ id }} }} {PROBLEM} }} }}"""
CREATE = f"""mutation($input: CreateTaskRunInput!) {{ it: createTaskRun(input: $input) {{
  ... on CreateTaskRunPayload {{ taskRun {{ id }} }} {PROBLEM} }} }}"""
PROPOSE = f"""mutation($input: ProposeStateInput!) {{ it: proposeState(input: $input) {{
  ... on OrchestrationResult {{ status state {{ id name version }} }} {PROBLEM} }} }}"""
CREATE_NAMED = f"""mutation($name: String!) {{ it: createFlow(input: {{name: $name, tags: ["bench"]}}) {{
  ... on CreateFlowPayload {{ flow {{ id name }} }} {PROBLEM} }} }}"""
UPDATE_NAMED = f"""mutation($id: ID!, $tag: String!) {{ it: updateFlow(input: {{id: $id, tags: [$tag]}}) {{
  ... on UpdateFlowPayload {{ flow {{ id tags }} }} {PROBLEM} }} }}"""
PROPOSE_MANY = PROPOSE.replace("$input: ProposeStateInput!", "$inputs: [ProposeStateInput!]!").replace(
    "proposeState(input: $input)", "proposeStates(inputs: $inputs)"
)
PAGE = """{ taskRuns(where: {stateType: {eq: COMPLETED}}, orderBy: [{startTime: DESC}], first: 200) { nodes {
  id name tags created updated stateType stateName stateTimestamp version runCount expectedStartTime startTime endTime
  totalRunTimeSeconds taskKey } } }"""
COLUMNS = """id, name, tags, created, updated, state_type, state_name, state_timestamp, version, run_count,
  expected_start_time, start_time, end_time, total_run_time_seconds, task_key"""
BASELINE_PAGE = f"""SELECT {COLUMNS} FROM task_run WHERE state_type = $1 AND start_time IS NOT NULL
  ORDER BY start_time DESC, id DESC LIMIT 201"""  # noqa: S608


@dataclass
class Timed:
    """Measurement of one kind of work."""

    count: int = 0
    """Number of transitions, or of requests."""
    took: list[float] = field(default_factory=list)
    """Latency of each request in seconds."""
    seconds: float = 0
    server: float = 0
    """CPU seconds of the server."""
    database: float = 0
    """CPU seconds of PostgreSQL."""

    def __add__(self, other: "Timed") -> "Timed":
        return Timed(
            self.count + other.count,
            self.took + other.took,
            self.seconds + other.seconds,
            self.server + other.server,
            self.database + other.database,
        )

    def percentile(self, part: float) -> float:
        """Return a percentile of the latencies in milliseconds."""
        return sorted(self.took)[min(int(len(self.took) * part), len(self.took) - 1)] * 1000

    @property
    def rate(self) -> float:
        """Number per second."""
        return self.count / self.seconds


@dataclass
class Place:
    """A server and its database."""

    url: str
    database_url: str
    server: psutil.Process
    database: psutil.Process | None

    @asynccontextmanager
    async def timed(self) -> AsyncIterator[Timed]:
        """Measure the work of a block."""
        timed, started, before = Timed(), time.monotonic(), self._cpu()
        yield timed
        timed.seconds = time.monotonic() - started
        timed.server, timed.database = (now - then for now, then in zip(self._cpu(), before, strict=True))

    def _cpu(self) -> tuple[float, float]:
        return _cpu_of([self.server]), _cpu_of(_family(self.database) if self.database else [])

    @property
    def megabytes(self) -> float:
        """Memory of the server in megabytes."""
        return float(self.server.memory_info().rss) / 2**20


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _cpu_of(processes: list[psutil.Process]) -> float:
    total = 0.0
    for place, process in enumerate(processes):
        try:
            used = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system + (used.children_user + used.children_system if place == 0 else 0)
    return total


async def at_once(
    place: Place, clients: int, work: Callable[[Client, Timed, float], Awaitable[None]], seconds: float
) -> Timed:
    """Let some clients work at the same time for some seconds."""
    connected = [await Client.connect(place.url) for _ in range(clients)]
    async with place.timed() as timed:
        until = time.monotonic() + seconds
        await asyncio.gather(*(work(client, timed, until) for client in connected))
    for client in connected:
        client.close()
    return timed


async def flow_run_of(client: Client) -> str:
    """Create a RUNNING flow run for task runs; return its id."""
    flow = (await client.execute(CREATE_FLOW))["it"]["flow"]["id"]
    return str((await client.execute(CREATE_RUN, flow=flow))["it"]["flowRun"]["id"])


async def create(client: Client, flow_run: str) -> str:
    """Create a task run; return its id."""
    given = {"flowRunId": flow_run, "taskKey": "task", "dynamicKey": uuid4().hex}
    return str((await client.execute(CREATE, input=given))["it"]["taskRun"]["id"])


def lifecycle(flow_run: str) -> Callable[[Client, Timed, float], Awaitable[None]]:
    """Return work that creates task runs and proposes their states, one in each request."""

    async def work(client: Client, timed: Timed, until: float) -> None:
        while time.monotonic() < until:
            task = await create(client, flow_run)
            for step in STEPS:
                before = time.perf_counter()
                answer = await client.post(
                    request(PROPOSE, input={"run": {"taskRunId": task}, "state": {"type": step}})
                )
                timed.took.append(time.perf_counter() - before)
                if b'"status":"ACCEPT"' not in answer:
                    raise RuntimeError(answer)
                timed.count += 1

    return work


def hundreds(tasks: list[str], clients: int) -> Callable[[Client, Timed, float], Awaitable[None]]:
    """Return work that proposes states for a hundred task runs in each request."""
    shares = iter([tasks[place * 100 : place * 100 + 100] for place in range(clients)])

    async def work(client: Client, timed: Timed, until: float) -> None:
        mine, step = next(shares), 0
        while time.monotonic() < until:
            state = {"type": STEPS[step % 2]}
            inputs = [{"run": {"taskRunId": task}, "state": state, "force": True} for task in mine]
            before = time.perf_counter()
            answer = await client.post(request(PROPOSE_MANY, inputs=inputs))
            timed.took.append(time.perf_counter() - before)
            if answer.count(b'"status":"ACCEPT"') != len(mine):
                raise RuntimeError(answer[:500])
            timed.count += len(mine)
            step += 1

    return work


async def creations(client: Client, timed: Timed, until: float) -> None:
    """Create flows, one in each request."""
    while time.monotonic() < until:
        await _timed(client, timed, request(CREATE_NAMED, name=uuid4().hex), b'"flow":')


async def updates(client: Client, timed: Timed, until: float) -> None:
    """Update one flow, once in each request."""
    flow = (await client.execute(CREATE_NAMED, name=uuid4().hex))["it"]["flow"]["id"]
    while time.monotonic() < until:
        await _timed(client, timed, request(UPDATE_NAMED, id=flow, tag=str(timed.count)), b'"flow":')


async def _timed(client: Client, timed: Timed, sent: bytes, expected: bytes) -> None:
    before = time.perf_counter()
    answer = await client.post(sent)
    timed.took.append(time.perf_counter() - before)
    if expected not in answer:
        raise RuntimeError(answer[:500])
    timed.count += 1


def asking(document: str) -> Callable[[Client, Timed, float], Awaitable[None]]:
    """Return work that sends one document repeatedly."""

    async def work(client: Client, timed: Timed, until: float) -> None:
        await client.execute(document)
        asked = request(document)
        while time.monotonic() < until:
            before = time.perf_counter()
            await client.post(asked)
            timed.took.append(time.perf_counter() - before)
            timed.count += 1

    return work


class Table:
    """A table that is printed line by line."""

    def __init__(self) -> None:
        print(
            "| work | per second | p50 ms | p99 ms | server CPU ms each | database CPU ms each | MB | of the driver |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)

    def line(self, what: str, place: Place, timed: Timed, baseline: float | None = None) -> None:
        """Print a line; `baseline` is the number per second of the driver alone."""
        beside = f"{timed.rate / baseline:.0%} of {baseline:,.0f}/s" if baseline else ""
        server, database = (each / timed.count * 1000 for each in (timed.server, timed.database))
        print(
            f"| {what} | {timed.rate:,.0f} | {timed.percentile(0.5):.1f} | {timed.percentile(0.99):.1f} |"
            f" {server:.2f} | {database:.2f} | {place.megabytes:.0f} | {beside} |",
            flush=True,
        )


async def writes(place: Place, name: str, seconds: float, table: Table, only: str) -> None:
    """Measure all work that writes."""
    client = await Client.connect(place.url)
    flow_run = await flow_run_of(client)
    tasks = [await create(client, flow_run) for _ in range(1000)]
    ids = [
        UUID(each) for each in tasks[800:]
    ]  # the baseline needs task runs of its own, because it writes versions that leave gaps
    for clients in (1, 32):
        if only in f"lifecycle {clients}":
            timed = await at_once(place, clients, lifecycle(flow_run), seconds)
            beside = await baseline_rate(place, ids[:clients], flow_run, seconds / 2, 1)
            table.line(f"{name}: transitions one a request, {clients} clients", place, timed, beside)
    if only in "hundreds":
        timed = await at_once(place, 8, hundreds(tasks, 8), seconds)
        for loops in (1, 2):
            beside = await baseline_rate(place, ids[: 100 * loops], flow_run, seconds / 2, loops)
            table.line(
                f"{name}: transitions 100 a request, 8 clients; {loops} baseline connections", place, timed, beside
            )
    for kind, work in (("creations", creations), ("updates", updates)):
        if only in kind:
            table.line(f"{name}: {kind} of flows, 8 clients", place, await at_once(place, 8, work, seconds))
    if only in "subscribers":
        await with_subscribers(place, name, seconds, table, flow_run)
    client.close()


async def baseline_rate(place: Place, tasks: list[UUID], flow_run: str, seconds: float, loops: int) -> float:
    """Return transitions per second of the driver alone on the same database; SQLite has one writer."""
    if place.database_url.startswith("sqlite"):
        file = str(sa.make_url(place.database_url).database)
        return await asyncio.to_thread(driver_baseline.transitions_sqlite, file, tasks, UUID(flow_run), seconds)
    return await driver_baseline.transitions(place.database_url, tasks, UUID(flow_run), seconds, loops)


SUBSCRIBERS = {
    "mixed": "100 subscribers",
    "nested": "200 subscribers that select the run",
    "different": "200 different ones",
}


async def with_subscribers(place: Place, name: str, seconds: float, table: Table, flow_run: str) -> None:
    """Measure the lifecycle with subscribers, of each kind; before and after that, without.

    The comparison has halves because tables grow meanwhile and PostgreSQL vacuums them.
    """
    alone, found = await at_once(place, 32, lifecycle(flow_run), seconds / 2), {}
    for kind in SUBSCRIBERS:
        found[kind] = await beside_subscribers(place, kind, seconds, flow_run)
        alone += await at_once(place, 32, lifecycle(flow_run), seconds / 2)
    table.line(f"{name}: lifecycle without subscribers, before, between and after", place, alone)
    for kind, timed in found.items():
        table.line(f"{name}: the same with {SUBSCRIBERS[kind]}", place, timed, alone.rate)


async def beside_subscribers(place: Place, kind: str, seconds: float, flow_run: str) -> Timed:
    """Measure the lifecycle with subscribers of one kind."""
    subscribers = subprocess.Popen([sys.executable, "-m", "benchmarks.subscribers", place.url, kind])  # noqa: ASYNC220 it returns at once
    try:
        await asyncio.sleep(3)
        if subscribers.poll() is not None:
            raise RuntimeError("The subscribers ended.")
        return await at_once(place, 32, lifecycle(flow_run), seconds)
    finally:
        subscribers.terminate()
        subscribers.wait()


async def finished(server: Place, number: int) -> None:
    """Create task runs that are COMPLETED, to fill pages."""
    client = await Client.connect(server.url)
    flow_run = await flow_run_of(client)
    tasks = [await create(client, flow_run) for _ in range(number)]
    for step in STEPS:
        for place in range(0, number, 100):
            inputs = [{"run": {"taskRunId": task}, "state": {"type": step}} for task in tasks[place : place + 100]]
            await client.execute(PROPOSE_MANY, inputs=inputs)
    client.close()


async def reads(place: Place, name: str, seconds: float, table: Table, only: str) -> None:
    """Measure all work that only reads."""
    if only in "page":
        await finished(place, 250)
    if only in "typename":
        table.line(
            f"{name}: {{ __typename }}, 8 clients", place, await at_once(place, 8, asking("{ __typename }"), seconds)
        )
    for clients in (1, 8):
        if only in "page":
            timed = await at_once(place, clients, asking(PAGE), seconds)
            beside = None
            if not place.database_url.startswith("sqlite"):
                took = await driver_baseline.page(
                    place.database_url, BASELINE_PAGE, ["COMPLETED"], seconds / 2, clients
                )
                beside = len(took) / (seconds / 2)
            table.line(f"{name}: page of 200 x 15, {clients} clients", place, timed, beside)


async def measure_reference(url: str, seconds: float) -> None:
    """Measure the lifecycle on a running Prefect server with its API at a URL."""
    for clients in (1, 16):
        timed: Timed = Timed()
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            flow = (await client.post("/flows/", json={"name": "bench"})).json()["id"]
            run = (await client.post("/flow_runs/", json={"flow_id": flow})).json()["id"]
            until = time.monotonic() + seconds

            async def work() -> None:
                while time.monotonic() < until:  # noqa: B023 it ends before it changes
                    given = {"flow_run_id": run, "task_key": "task", "dynamic_key": uuid4().hex}  # noqa: B023
                    task = (await client.post("/task_runs/", json=given)).json()["id"]
                    for step in STEPS:
                        before = time.perf_counter()
                        told = await client.post(f"/task_runs/{task}/set_state", json={"state": {"type": step}})
                        timed.took.append(time.perf_counter() - before)  # noqa: B023
                        timed.count += told.status_code < 300  # noqa: B023

            started = time.monotonic()
            await asyncio.gather(*(work() for _ in range(clients)))
            timed.seconds = time.monotonic() - started
        print(f"| reference: transitions one a request, {clients} clients | {timed.rate:,.0f} |"
              f" {timed.percentile(0.5):.1f} | {timed.percentile(0.99):.1f} | | | | |", flush=True)  # fmt: skip


Which = Annotated[str, typer.Option(help="`sqlite`, `postgresql`, or both.")]
Seconds = Annotated[float, typer.Option(help="Duration of each kind of work in seconds.")]
Only = Annotated[
    str, typer.Option(help="Only one kind: lifecycle, hundreds, creations, updates, subscribers, page, typename.")
]


Reference = Annotated[str | None, typer.Option(help="URL of the API of a running Prefect server to measure too.")]


def main(
    database: Which = "sqlite,postgresql", seconds: Seconds = 8, only: Only = "", reference: Reference = None
) -> None:
    """Measure all work and print a table."""
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    print(f"{machine}; client, server and database share it.\n")
    table = Table()

    async def measure(place: Place, name: str) -> None:
        await writes(place, name, seconds, table, only)
        await reads(place, name, seconds, table, only)

    with tempfile.TemporaryDirectory() as folder:
        if "sqlite" in database:
            url = f"sqlite+aiosqlite:///{folder}/bench.db"
            with serving(url) as (address, server):
                uvloop.run(measure(Place(address, url, server, None), "SQLite"))
        if "postgresql" in database:
            with postgresql(Path(folder) / "postgresql") as (url, database_server), serving(url) as (address, server):
                uvloop.run(measure(Place(address, url, server, database_server), "PostgreSQL"))
    if reference:
        uvloop.run(measure_reference(reference, seconds))


if __name__ == "__main__":
    typer.run(main)
