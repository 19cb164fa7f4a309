"""How long reading takes over HTTP, warm, at the size that the database has: fill it with benchmarks/populate.py first.

    python benchmarks/queries.py --database-url postgresql+asyncpg://…

Starts one server process on loopback, without services, asks one query after the other from a light client, and prints
the median and the 95th percentile of each; beside it, from the same run, what a bare loop takes that sends the same SQL
through the driver and makes JSON of the rows, and the ratio of the two. Then as many clients as asked ask at once.
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
from light import Client, again_and_again, request, serving

from runstate.database import Database
from runstate.graphql.context import Context
from runstate.graphql.schema import Schema, build_schema

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
A_FLOW = "{ flows(first: 1) { nodes { id } } }"
TINY = "{ __typename }"
Url = Annotated[str, typer.Option(help="A database that benchmarks/populate.py has filled.")]
Times = Annotated[int, typer.Option(help="How often each query is asked.")]


Clients = Annotated[int, typer.Option(help="How many clients ask at once in the second part.")]

Ask = Callable[[], Awaitable[Any]]


class Asked(NamedTuple):
    """A query, and what it may take."""

    what: str
    goal: float
    document: str
    variables: dict[str, Any]


class Said(NamedTuple):
    """A statement that a query sends."""

    sql: str
    parameters: tuple[Any, ...]


class Bare:
    """The same statements without a server: driver and JSON."""

    def __init__(self, database: Database, schema: Schema) -> None:
        self.database = database
        self.schema = schema
        self.driver: Any = None

    async def open(self) -> None:
        """Connect."""
        if self.database.is_sqlite:
            self.driver = sqlite3.connect(str(self.database.file))
        else:
            url = self.database.url.set(drivername="postgresql").render_as_string(hide_password=False)
            self.driver = await asyncpg.connect(url, server_settings={"jit": "off"})

    async def statements(self, asked: Asked) -> list[Said]:
        """What a query sends."""
        said: list[Said] = []

        def note(_: Any, __: Any, sql: str, parameters: Any, *___: Any) -> None:
            if sql != "BEGIN":
                said.append(Said(sql, tuple(parameters)))

        reader = self.database.reader.sync_engine
        sa.event.listen(reader, "before_cursor_execute", note)
        await self.schema.execute(asked.document, asked.variables, Context(self.database, lambda: datetime.now(UTC)))
        sa.event.remove(reader, "before_cursor_execute", note)
        return said

    async def answer(self, said: list[Said]) -> bytes:
        """Send them, and make JSON of what comes."""
        if self.database.is_sqlite:
            found = [self.driver.execute(each.sql, each.parameters).fetchall() for each in said]
        else:
            read = [await self.driver.fetch(each.sql, *each.parameters) for each in said]
            found = [[dict(row) for row in rows] for rows in read]
        return orjson.dumps(found, default=str)


async def timed(times: int, *asks: Ask) -> list[list[float]]:
    """How many milliseconds each of some ways to ask takes, sorted; in turns, so that all meet the same machine."""
    taken: list[list[float]] = [[] for _ in asks]
    for turn in range(times + 10):
        for ask, held in zip(asks, taken, strict=True):
            began = time.perf_counter()
            await ask()
            if turn >= 10:
                held.append((time.perf_counter() - began) * 1000)
    return [sorted(held) for held in taken]


async def compare(client: Client, bare: Bare, asked: Asked, times: int) -> None:
    """Ask again and again, and print how long it took, and the bare loop."""
    wire = request(asked.document, **asked.variables)
    await client.ask(asked.document, **asked.variables)
    said = await bare.statements(asked)
    served, looped = await timed(times, lambda: client.post(wire), lambda: bare.answer(said))
    p50, p95, loop = statistics.median(served), statistics.quantiles(served, n=20)[-1], statistics.median(looped)
    print(
        f"| {asked.what:<58} | {p50:8.2f} | {p95:8.2f} | {asked.goal:6.1f} | {loop:9.2f} | {p50 / loop:5.1f} "
        f"| {len(said):10} |",
        flush=True,
    )


async def everything(client: Client) -> list[Asked]:
    """Every query, and where it ought to be."""
    after = None
    for _ in range(499):
        page = (await client.ask(TURN, after=after))["taskRuns"]["pageInfo"]
        after = page["endCursor"]
        if not page["hasNextPage"]:
            break
    now = datetime.now(UTC)
    day = {"since": (now - timedelta(days=10)).isoformat(), "until": (now - timedelta(days=9)).isoformat()}
    run = (await client.ask(WIDE))["flowRuns"]["nodes"][0]["id"]
    flow = (await client.ask(A_FLOW))["flows"]["nodes"][0]["id"]
    return [
        Asked("200 task runs of a state by start time, 15 fields", 3.5, PAGE, {}),
        Asked("the 500th page of them", 7, PAGE, {"after": after}),
        Asked("task runs by state", 3, BY_STATE, {}),
        Asked("task runs with one of two states and a tag", 60, TAGGED, {}),
        Asked("a day's history of flow runs in 24 intervals", 25, HISTORY, day),
        Asked("a day's history of task runs in 24 intervals", 25, TASK_HISTORY, day),
        Asked("a flow run with its 100 task runs and their states", 15, WHOLE, {"id": run}),
        Asked("flow runs by flow and state", 3, GROUPED, {}),
        Asked("flow runs of a flow by state", 3, OF_FLOW, {"id": flow}),
    ]


async def at_once(url: str, process: psutil.Process, seconds: float, clients: int) -> None:
    """How much is answered in a second."""
    print(f"\n| at {clients} clients | a second | p50 (ms) | p99 (ms) | CPU (ms) of the server for each |")
    print("|---|---:|---:|---:|---:|")
    for what, document in (("{ __typename }", TINY), ("the page of 200 x 15", PAGE)):
        wire = request(document)
        await again_and_again(url, wire, 0.5, clients)
        before, began = sum(process.cpu_times()[:2]), time.perf_counter()
        taken = await again_and_again(url, wire, seconds, clients)
        spent, passed = sum(process.cpu_times()[:2]) - before, time.perf_counter() - began
        p50, p99 = taken[len(taken) // 2] * 1000, taken[len(taken) * 99 // 100] * 1000
        rate, cost = len(taken) / passed, spent / len(taken) * 1000
        print(f"| {what} | {rate:.0f} | {p50:.2f} | {p99:.2f} | {cost:.3f} |", flush=True)


async def against(database_url: str, times: int, seconds: float, clients: int) -> None:
    """Start a server on the database and measure."""
    bare = Bare(Database(database_url), build_schema())
    await bare.open()
    with serving(database_url) as (url, process):
        client = await Client.connect(url)
        numbers = await client.ask("{ flowRunCount taskRunCount }")
        print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; {numbers}\n")
        print(f"| {'query':<58} | p50 (ms) | p95 (ms) | goal   | bare loop | ratio | statements |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for asked in await everything(client):
            await compare(client, bare, asked, times)
        await at_once(url, process, seconds, clients)
    await bare.database.close()


def main(database_url: Url, times: Times = 50, seconds: float = 4.0, clients: Clients = 8) -> None:
    """Measure what reading costs."""
    uvloop.run(against(database_url, times, seconds, clients))


if __name__ == "__main__":
    typer.run(main)
