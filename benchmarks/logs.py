"""Throughput of writing logs, the latency of a page, and the cost of live tails.

    python -m benchmarks.logs --database-url postgresql+asyncpg://… --seconds 10

Starts one server process on loopback without services. Several clients write batches, each to a flow run of its own,
and then again while tails of other runs are open, and while one of these follows everything. Prints lines per second,
CPU time of server and database for each line, median and 95th percentile of a page of 200 lines of a run with 100,000
lines, from both ends, and the latency of proposals, alone and while another run logs 1,000 lines a second.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import orjson
import psutil
import typer
import uvloop
import websockets

from benchmarks.http_client import Client, repeat, request, serving

WRITE: Final = "mutation($input: WriteLogsInput!) { writeLogs(input: $input) { ... on WriteLogsPayload { written } } }"
PAGE: Final = """query($run: ID!, $by: [LogOrderBy!]) { logs(where: {flowRunId: {eq: $run}}, orderBy: $by, first: 200) {
  nodes { id timestamp level logger message taskRunId } pageInfo { endCursor hasNextPage } } }"""
TREE: Final = "query($run: ID!) { logs(tree: $run, first: 200) { nodes { id timestamp level logger message } } }"
TAIL: Final = "subscription($tree: ID) { logs(tree: $tree) { cursor logs { timestamp level message } } }"
PROPOSE: Final = """mutation($run: ID!) { proposeState(input: {
  run: {flowRunId: $run}, state: {type: RUNNING}, force: true}) { ... on OrchestrationResult { status } } }"""
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
FIRST_SECOND: Final = START.isoformat()[:19].encode()
LARGEST_BATCH: Final = 1_000
Url = Annotated[str, typer.Option(help="URL of an empty database.")]


def lines(run: str, number: int, since: int = 0) -> list[dict[str, Any]]:
    """Return lines of a run, a millisecond apart."""
    return [
        {
            "flowRunId": run,
            "logger": "etl.orders",
            "level": 20,
            "message": f"Order {each} of customer {each % 977} was loaded into the warehouse in {each % 83} ms",
            "timestamp": (START + timedelta(milliseconds=each)).isoformat(),
        }
        for each in range(since, since + number)
    ]


FLOW: Final = (
    "mutation($name: String!) { createFlow(input: {name: $name}) { ... on CreateFlowPayload { flow { id } } } }"
)
RUN: Final = """mutation($flow: ID!) {
  createFlowRun(input: {flowId: $flow}) { ... on CreateFlowRunPayload { flowRun { id } } } }"""


async def flow_runs(url: str, number: int) -> list[str]:
    """Create flow runs and return their ids."""
    client = await Client.connect(url)
    flow = (await client.execute(FLOW, name="logs"))["createFlow"]["flow"]["id"]
    made = [(await client.execute(RUN, flow=flow))["createFlowRun"]["flowRun"]["id"] for _ in range(number)]
    client.close()
    return made


async def throughput(
    url: str, process: psutil.Process, batch: int, clients: int, seconds: float
) -> tuple[float, float]:
    """Return the lines per second of several clients, and microseconds of CPU of server and database for each line."""
    runs = await flow_runs(url, clients)
    await asyncio.gather(*(write(url, run, batch, 0.2) for run in runs))
    began, used = time.perf_counter(), cpu_seconds(process)
    number = sum(await asyncio.gather(*(write(url, run, batch, seconds, 1_000) for run in runs)))
    elapsed, cpu = time.perf_counter() - began, cpu_seconds(process) - used
    return number / elapsed, cpu / number * 1e6


async def write(url: str, run: str, batch: int, seconds: float, since: int = 0) -> int:
    """Write batches for some seconds, each a second later than the one before; return the number of lines."""
    client, sent, number = await Client.connect(url), request(WRITE, input={"logs": lines(run, batch)}), 0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        # As long as before: the length of the request is in its head.
        second = (START + timedelta(seconds=since + number)).isoformat()[:19].encode()
        answer = await client.post(sent.replace(FIRST_SECOND, second))
        if b'"errors"' in answer[:200]:
            raise RuntimeError(answer[:500])
        number += 1
    client.close()
    return batch * number


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time of a process and of the processes of PostgreSQL, in seconds."""
    databases = [each for each in psutil.process_iter(["name"]) if each.info["name"] == "postgres"]
    return sum(sum(each.cpu_times()[:2]) for each in (process, *databases))


async def fill(url: str, run: str, number: int) -> None:
    """Write lines to a run."""
    client = await Client.connect(url)
    for since in range(0, number, LARGEST_BATCH):
        await client.execute(WRITE, input={"logs": lines(run, LARGEST_BATCH, since)})
    client.close()


@asynccontextmanager
async def tails(url: str, number: int, *, everything: bool) -> AsyncIterator[list[int]]:
    """Keep subscriptions open to the logs of runs that write nothing; yield the numbers of lines that they receive.

    With `everything`, the first one follows all runs.
    """
    received = [0] * number
    runs = await flow_runs(url, number)

    async def follow(place: int) -> None:
        address = url.replace("http://", "ws://")
        options: dict[str, Any] = {"subprotocols": ["graphql-transport-ws"], "compression": None, "max_size": 2**24}
        async with websockets.connect(address, **options) as socket:
            await socket.send('{"type": "connection_init"}')
            await socket.recv()
            payload = {"query": TAIL, "variables": {"tree": None if everything and not place else runs[place]}}
            await socket.send(orjson.dumps({"type": "subscribe", "id": "1", "payload": payload}).decode())
            while True:
                received[place] += (await socket.recv(decode=False)).count(b'"level"')

    tasks = [asyncio.ensure_future(follow(place)) for place in range(number)]
    await asyncio.sleep(2)
    yield received
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def trickle(url: str, run: str) -> None:
    """Write 1,000 lines a second to a run, as five clients that send every second."""
    client, sent = await Client.connect(url), request(WRITE, input={"logs": lines(run, 200)})
    try:
        while True:
            began = time.perf_counter()
            await client.post(sent)
            await asyncio.sleep(max(0, 0.2 - (time.perf_counter() - began)))
    finally:
        client.close()


async def measure(url: str, process: psutil.Process, batch: int, clients: int, seconds: float, number: int) -> None:
    """Print all figures."""
    speed, cpu = await throughput(url, process, batch, clients, seconds)
    print(f"writing, {clients} clients, batches of {batch}: {speed:,.0f} lines/s, {cpu:.1f} us of CPU a line")
    for everything in (False, True):
        async with tails(url, number, everything=everything) as received:
            speed, cpu = await throughput(url, process, batch, clients, seconds)
        print(f"with {number} tails: {speed:,.0f} lines/s, {cpu:.1f} us a line; the first tail got {received[0]:,}")
    (run,) = await flow_runs(url, 1)
    await fill(url, run, 100_000)
    for direction in ("ASC", "DESC"):
        taken = await repeat(url, request(PAGE, run=run, by=[{"timestamp": direction}]), seconds / 3, 1)
        median, worst = statistics.median(taken) * 1e3, taken[int(len(taken) * 0.95)] * 1e3
        print(f"page of 200 of 100,000 lines, {direction}: {median:.2f} ms, 95 % within {worst:.2f} ms")
    taken = await repeat(url, request(TREE, run=run), seconds / 3, 1)
    print(f"page of 200 of a tree with 100,000 lines: {statistics.median(taken) * 1e3:.2f} ms")
    for name in ("alone", "while 1,000 lines/s are logged", "alone", "while 1,000 lines/s are logged"):
        logging = asyncio.ensure_future(trickle(url, run)) if name != "alone" else None
        taken = await repeat(url, request(PROPOSE, run=(await flow_runs(url, 1))[0]), seconds / 2, 1)
        if logging:
            logging.cancel()
        median, worst = statistics.median(taken) * 1e3, taken[int(len(taken) * 0.95)] * 1e3
        print(f"proposals {name}: {median:.2f} ms, 95 % within {worst:.2f} ms")


def main(database_url: Url, batch: int = 200, clients: int = 4, seconds: float = 5, tails: int = 100) -> None:
    """Start a server and print the figures."""
    with serving(database_url) as (url, process):
        uvloop.run(measure(url, process, batch, clients, seconds, tails))


if __name__ == "__main__":
    typer.run(main)
