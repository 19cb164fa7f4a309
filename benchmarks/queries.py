"""How long reading takes over HTTP, warm, at the size that the database has: fill it with benchmarks/populate.py first.

    python benchmarks/queries.py --database-url postgresql+asyncpg://…

Starts one server process on loopback, without services, asks one query after the other, and prints the median and the
95th percentile of each.
"""

import asyncio
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import httpx
import typer

FIELDS = """id name tags created updated stateType stateName stateTimestamp version runCount expectedStartTime
  startTime endTime totalRunTimeSeconds taskKey"""
PAGE = f"""query($after: String) {{
  taskRuns(where: {{stateType: {{eq: COMPLETED}}}}, orderBy: [{{startTime: DESC}}], first: 200, after: $after) {{
    nodes {{ {FIELDS} }} pageInfo {{ endCursor hasNextPage }} }} }}"""
TURN = PAGE.replace(FIELDS, "id")
BY_STATE = "{ taskRunCountsByState { stateType stateName count } }"
TAGGED = '{ taskRunCount(where: {stateType: {in: [COMPLETED, FAILED]}, tags: {any: ["etl"]}}) }'
HISTORY = """query($kind: DateTime!, $until: DateTime!) {
  flowRunHistory(since: $kind, until: $until, intervalSeconds: 3600) {
    start states { stateType stateName count estimatedRunTimeSeconds estimatedLatenessSeconds } } }"""
TASK_HISTORY = HISTORY.replace("flowRunHistory", "taskRunHistory")
WIDE = """{ flowRuns(first: 1) { nodes { id } } }"""
WHOLE = """query($id: ID!) { flowRun(id: $id) { id name stateType taskRuns(first: 200) {
  nodes { id name stateType startTime endTime states { nodes { id type name timestamp version } } } } } }"""
GROUPED = "{ flowRunCounts(groupBy: [FLOW, STATE_TYPE]) { flowId stateType count } }"
OF_FLOW = """query($id: ID!) { flowRunCountsByState(where: {flow: {id: {eq: $id}}}) { stateType count } }"""
A_FLOW = "{ flows(first: 1) { nodes { id } } }"
Url = Annotated[str, typer.Option(help="A database that benchmarks/populate.py has filled.")]
Times = Annotated[int, typer.Option(help="How often each query is asked.")]


class Measured:
    """A server that is asked, and what was measured."""

    def __init__(self, client: httpx.AsyncClient, url: str, times: int) -> None:
        self.client = client
        self.url = url
        self.times = times

    async def ask(self, document: str, **variables: Any) -> Any:
        """The data of an answer."""
        answer = (await self.client.post(self.url, json={"query": document, "variables": variables})).json()
        if answer.get("errors"):
            raise RuntimeError(answer["errors"])
        return answer["data"]

    async def measure(self, what: str, goal: float, document: str, **variables: Any) -> None:
        """Ask again and again, and print how long it took."""
        for _ in range(5):
            await self.ask(document, **variables)
        taken = []
        for _ in range(self.times):
            began = time.perf_counter()
            await self.ask(document, **variables)
            taken.append((time.perf_counter() - began) * 1000)
        p50, p95 = statistics.median(taken), statistics.quantiles(taken, n=20)[-1]
        print(f"| {what:<58} | {p50:8.1f} | {p95:8.1f} | {goal:8.0f} |", flush=True)


async def measure_all(measured: Measured) -> None:
    """Every query, and where it ought to be."""
    print(f"| {'query':<58} | p50 (ms) | p95 (ms) | goal (ms)|\n|{'-' * 60}|---------:|---------:|---------:|")
    await measured.measure("200 task runs of a state by start time, 15 fields", 12, PAGE)
    after = None
    for _ in range(499):
        page = (await measured.ask(TURN, after=after))["taskRuns"]["pageInfo"]
        after = page["endCursor"]
        if not page["hasNextPage"]:
            break
    await measured.measure("the 500th page of them", 24, PAGE, after=after)
    await measured.measure("task runs by state", 3, BY_STATE)
    await measured.measure("task runs with one of two states and a tag", 60, TAGGED)
    now = datetime.now(UTC)
    day = {"kind": (now - timedelta(days=10)).isoformat(), "until": (now - timedelta(days=9)).isoformat()}
    await measured.measure("a day's history of flow runs in 24 intervals", 25, HISTORY, **day)
    await measured.measure("a day's history of task runs in 24 intervals", 25, TASK_HISTORY, **day)
    run = (await measured.ask(WIDE))["flowRuns"]["nodes"][0]["id"]
    await measured.measure("a flow run with its 100 task runs and their states", 15, WHOLE, id=run)
    await measured.measure("flow runs by flow and state", 3, GROUPED)
    flow = (await measured.ask(A_FLOW))["flows"]["nodes"][0]["id"]
    await measured.measure("flow runs of a flow by state", 3, OF_FLOW, id=flow)


async def against(url: str, times: int) -> None:
    """Start a server on the database and measure."""
    settings = {"RUNSTATE_DATABASE_URL": url, "RUNSTATE_SERVICES": "off", "RUNSTATE_PORT": "0"}
    command = [sys.executable, "-m", "runstate", "serve"]
    server = subprocess.Popen(command, env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 before anything else
    try:
        assert server.stdout  # noqa: S101 it is piped
        address = next(found.group() for line in server.stdout if (found := re.search(r"http://\S+/graphql", line)))
        async with httpx.AsyncClient(timeout=60) as client:
            measured = Measured(client, address, times)
            numbers = await measured.ask("{ flowRunCount taskRunCount }")
            print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; {numbers}\n")
            await measure_all(measured)
    finally:
        server.terminate()
        server.wait()


def main(database_url: Url, times: Times = 50) -> None:
    """Measure what reading costs."""
    asyncio.run(against(database_url, times))


if __name__ == "__main__":
    typer.run(main)
