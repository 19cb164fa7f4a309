"""Latency of queries over HTTP on a database that benchmarks/populate.py has filled, with warm caches.

    python -m benchmarks.queries --database-url postgresql+asyncpg://…

Starts one server process on loopback without services, and prints median and 95th percentile of each query. In the same
run the same SQL is sent through the driver alone and the rows are encoded as JSON: the output has its median and the
ratio of the two. Then several clients send requests at once.
"""

import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple

import asyncpg
import orjson
import psutil
import sqlalchemy as sa
import typer
import uvloop

from benchmarks.http_client import Client, repeat, request, serving
from runstate.database import Database
from runstate.feed import Feed
from runstate.graphql.context import Context
from runstate.graphql.execution.operation import Schema
from runstate.graphql.schema import build_schema

FIELDS = """id name tags created updated stateType stateName stateTimestamp version runCount expectedStartTime
  startTime endTime totalRunTimeSeconds taskKey"""
PAGE = f"""query($after: String) {{
  taskRuns(where: {{stateType: {{eq: COMPLETED}}}}, orderBy: [{{startTime: DESC}}], first: 200, after: $after) {{
    nodes {{ {FIELDS} }} pageInfo {{ endCursor hasNextPage }} }} }}"""
TURN = PAGE.replace(FIELDS, "id")
BY_STATE = "{ taskRunCountsByState { stateType stateName count } }"
TAGGED = '{ taskRunCount(where: {stateType: {in: [COMPLETED, FAILED]}, tags: {any: ["etl"]}}) }'
HISTORY = """query($since: DateTime!, $until: DateTime!) {
  flowRunHistory(since: $since, until: $until, intervalSeconds: 3600) {
    start states { stateType stateName count estimatedRunTimeSeconds estimatedLatenessSeconds } } }"""
TASK_HISTORY = HISTORY.replace("flowRunHistory", "taskRunHistory")
WIDE = """{ flowRuns(first: 1) { nodes { id } } }"""
WHOLE = """query($id: ID!) { flowRun(id: $id) { id name stateType taskRuns(first: 200) {
  nodes { id name stateType startTime endTime states { nodes { id type name timestamp version } } } } } }"""
GROUPED = "{ flowRunCounts(groupBy: [FLOW, STATE_TYPE]) { flowId stateType count } }"
OF_FLOW = """query($id: ID!) { flowRunCountsByState(where: {flow: {id: {eq: $id}}}) { stateType count } }"""
WAITING = """{ concurrencyLimit(by: {name: "tag:busy"}) { waitingCount
  waiting(first: 50) { nodes { created run { id name stateType } flowRun { id name } } } } }"""
STATISTICS = """query($id: ID!) { flowRunStatistics(where: {flowId: {eq: $id}}, since: {secondsAgo: 2592000},
  interval: {calendar: {unit: DAY, timeZone: "Europe/Berlin"}}) { start count completed failed successRate
  runTimeSeconds { mean p50: quantile(at: 0.5) p95: quantile(at: 0.95) } } }"""
TRANSITIONS = """query($after: String) { transitions(after: $after) { cursor hasMore transitions {
  runKind runId version occurred previousStateType previousStateName stateType stateName message } } }"""
A_FLOW = "{ flowRunCounts(groupBy: [FLOW], first: 1) { flowId } }"
TINY = "{ __typename }"
Url = Annotated[str, typer.Option(help="Database that benchmarks/populate.py has filled.")]
Times = Annotated[int, typer.Option(help="Number of repetitions of each query.")]


Clients = Annotated[int, typer.Option(help="Number of clients in the second part.")]

Send = Callable[[], Awaitable[Any]]


class Query(NamedTuple):
    """A query, and the goal for its median in milliseconds."""

    name: str
    goal: float
    document: str
    variables: dict[str, Any]


class Statement(NamedTuple):
    """A statement that a query executes."""

    sql: str
    parameters: tuple[Any, ...]


class Baseline:
    """The same statements with driver and JSON encoder alone."""

    def __init__(self, database: Database, schema: Schema) -> None:
        self.database = database
        self.schema = schema
        self.feed = Feed(database)
        self.driver: Any = None

    async def open(self) -> None:
        """Open the connection, and start the feed."""
        await self.feed.start()
        if self.database.is_sqlite:
            self.driver = sqlite3.connect(str(self.database.file))
        else:
            url = self.database.url.set(drivername="postgresql").render_as_string(hide_password=False)
            self.driver = await asyncpg.connect(url, server_settings={"jit": "off"})

    async def statements(self, query: Query) -> list[Statement]:
        """Return the statements that a query executes."""
        statements: list[Statement] = []

        def note(_: Any, __: Any, sql: str, parameters: Any, *___: Any) -> None:
            if sql != "BEGIN":
                statements.append(Statement(sql, tuple(parameters)))

        reader = self.database.reader.sync_engine
        sa.event.listen(reader, "before_cursor_execute", note)
        context = Context(self.database, lambda: datetime.now(UTC), feed=self.feed)
        answer = await self.schema.execute(query.document, query.variables, context)
        if answer.errors:
            raise RuntimeError(answer.errors)
        sa.event.remove(reader, "before_cursor_execute", note)
        return statements

    async def answer(self, statements: list[Statement]) -> bytes:
        """Execute statements and encode their rows as JSON."""
        if self.database.is_sqlite:
            found = [self.driver.execute(each.sql, each.parameters).fetchall() for each in statements]
        else:
            read = [await self.driver.fetch(each.sql, *each.parameters) for each in statements]
            found = [[dict(row) for row in rows] for rows in read]
        return orjson.dumps(found, default=str)


async def timed(times: int, *sends: Send) -> list[list[float]]:
    """Return the latencies of each function in milliseconds, sorted; calls alternate for fairness."""
    taken: list[list[float]] = [[] for _ in sends]
    for turn in range(times + 10):
        for send, times_of in zip(sends, taken, strict=True):
            began = time.perf_counter()
            await send()
            if turn >= 10:
                times_of.append((time.perf_counter() - began) * 1000)
    return [sorted(each) for each in taken]


async def compare(client: Client, baseline: Baseline, query: Query, times: int) -> None:
    """Measure a query and its baseline, and print a line."""
    wire = request(query.document, **query.variables)
    await client.execute(query.document, **query.variables)
    statements = await baseline.statements(query)
    served, looped = await timed(times, lambda: client.post(wire), lambda: baseline.answer(statements))
    p50, p95, loop = statistics.median(served), statistics.quantiles(served, n=20)[-1], statistics.median(looped)
    print(
        f"| {query.name:<58} | {p50:8.2f} | {p95:8.2f} | {query.goal:6.1f} | {loop:9.2f} | {p50 / loop:5.1f} "
        f"| {len(statements):10} |",
        flush=True,
    )


async def queries(client: Client) -> list[Query]:
    """Return every query with its goal."""
    after = None
    for _ in range(499):
        page = (await client.execute(TURN, after=after))["taskRuns"]["pageInfo"]
        after = page["endCursor"]
        if not page["hasNextPage"]:
            break
    now = datetime.now(UTC)
    day = {"since": (now - timedelta(days=10)).isoformat(), "until": (now - timedelta(days=9)).isoformat()}
    run = (await client.execute(WIDE))["flowRuns"]["nodes"][0]["id"]
    flow = (await client.execute(A_FLOW))["flowRunCounts"][0]["flowId"]
    cursor = None
    for _ in range(3):
        cursor = (await client.execute(TRANSITIONS, after=cursor))["transitions"]["cursor"]
    return [
        Query("200 task runs of a state by start time, 15 fields", 3.5, PAGE, {}),
        Query("the 500th page of them", 7, PAGE, {"after": after}),
        Query("task runs by state", 3, BY_STATE, {}),
        Query("task runs with one of two states and a tag", 60, TAGGED, {}),
        Query("a day's history of flow runs in 24 intervals", 25, HISTORY, day),
        Query("a day's history of task runs in 24 intervals", 25, TASK_HISTORY, day),
        Query("a flow run with its 100 task runs and their states", 15, WHOLE, {"id": run}),
        Query("flow runs by flow and state", 3, GROUPED, {}),
        Query("flow runs of a flow by state", 3, OF_FLOW, {"id": flow}),
        Query("50 of the 1,000 waiting runs of a limit", 5, WAITING, {}),
        Query("30 days of the largest flow by day, with quantiles", 40, STATISTICS, {"id": flow}),
        Query("a page of 100 transitions", 5, TRANSITIONS, {"after": cursor}),
    ]


async def at_once(url: str, process: psutil.Process, seconds: float, clients: int) -> None:
    """Measure requests per second of several clients."""
    print(f"\n| at {clients} clients | a second | p50 (ms) | p99 (ms) | CPU (ms) of the server for each |")
    print("|---|---:|---:|---:|---:|")
    for what, document in (("{ __typename }", TINY), ("the page of 200 x 15", PAGE)):
        wire = request(document)
        await repeat(url, wire, 0.5, clients)
        before, began = sum(process.cpu_times()[:2]), time.perf_counter()
        taken = await repeat(url, wire, seconds, clients)
        spent, passed = sum(process.cpu_times()[:2]) - before, time.perf_counter() - began
        p50, p99 = taken[len(taken) // 2] * 1000, taken[len(taken) * 99 // 100] * 1000
        rate, cost = len(taken) / passed, spent / len(taken) * 1000
        print(f"| {what} | {rate:.0f} | {p50:.2f} | {p99:.2f} | {cost:.3f} |", flush=True)


async def against(database_url: str, times: int, seconds: float, clients: int) -> None:
    """Start a server on the database and measure it."""
    baseline = Baseline(Database(database_url), build_schema())
    await baseline.open()
    with serving(database_url) as (url, process):
        client = await Client.connect(url)
        numbers = await client.execute("{ flowRunCount taskRunCount }")
        print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; {numbers}\n")
        print(f"| {'query':<58} | p50 (ms) | p95 (ms) | goal   | driver    | ratio | statements |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for query in await queries(client):
            await compare(client, baseline, query, times)
        await at_once(url, process, seconds, clients)
    await baseline.feed.stop()
    await baseline.database.close()


def main(database_url: Url, times: Times = 50, seconds: float = 4.0, clients: Clients = 8) -> None:
    """Measure all queries and print a table."""
    uvloop.run(against(database_url, times, seconds, clients))


if __name__ == "__main__":
    typer.run(main)
