"""Throughput of writing logs, the latency of a page, and the cost of live tails.

    python -m benchmarks.logs --database-url postgresql+asyncpg://… --seconds 10

Starts one server process on loopback without services. Several clients write batches, each to a flow run of its own;
in turns without tails, while tails of other runs are open, and while one of these follows everything. Prints lines per
second, CPU time of server and database for each line, median and 95th percentile of a page of 200 lines of a run with
100,000 lines, from both ends, and the latency of proposals, in turns alone and while another run logs 1,000 lines a
second.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
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
SLICE: Final = 0.5
"""Seconds of a turn of proposals, with or without lines."""
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


async def write(url: str, run: str, batch: int, seconds: float, since: int = 0, every: float = 0) -> int:
    """Write batches for some seconds, each a second later than the one before; return the number of lines.

    With `every`, a batch begins that many seconds after the one before.
    """
    client, sent, number = await Client.connect(url), request(WRITE, input={"logs": lines(run, batch)}), 0
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        # As long as before: the length of the request is in its head.
        second = (START + timedelta(seconds=since + number)).isoformat()[:19].encode()
        answer = await client.post(sent.replace(FIRST_SECOND, second))
        if b'"errors"' in answer[:200]:
            raise RuntimeError(answer[:500])
        number += 1
        await asyncio.sleep(max(0, began + every - time.perf_counter()))
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


async def writing(
    url: str, process: psutil.Process, batch: int, clients: int, seconds: float, number: int, rounds: int
) -> None:
    """Print the speed of writing, without tails, with those of other runs, and while one of them follows everything."""
    kinds = {"without tails": None, f"{number} tails of other runs": False, "one of them follows everything": True}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    # In turns: other load of the machine slows all of them.
    for _ in range(rounds):
        for name, everything in kinds.items():
            async with AsyncExitStack() as stack:
                if everything is not None:
                    received = await stack.enter_async_context(tails(url, number, everything=everything))
                found[name].append(await throughput(url, process, batch, clients, seconds))
        print(f"the tail of everything got {received[0]:,} lines")
    fastest = statistics.median(speed for speed, _ in found["without tails"])
    for name, each in found.items():
        speed, cpu = (statistics.median(values) for values in zip(*each, strict=True))
        print(
            f"{clients} clients, batches of {batch}, {name}: {speed:,.0f} lines/s ({speed / fastest:.0%}), {cpu:.1f} us"
        )


async def proposing(url: str, run: str, seconds: float) -> None:
    """Print the latency of proposals, alone and while another run logs 1,000 lines a second, in turns."""
    taken: dict[bool, list[float]] = {False: [], True: []}
    sent = request(PROPOSE, run=(await flow_runs(url, 1))[0])
    await repeat(url, sent, SLICE, 1)
    for turn in range(int(4 * seconds / SLICE)):
        # Off, on, on, off: what changes slowly concerns both.
        with_logs = turn % 4 in (1, 2)
        logging = write(url, run, 200, SLICE, 1_000 + 10 * turn, 0.2) if with_logs else asyncio.sleep(0)
        times, _ = await asyncio.gather(repeat(url, sent, SLICE, 1), logging)
        taken[with_logs] += times
    alone, beside = (sorted(taken[each]) for each in (False, True))
    for name, times in (("alone", alone), ("while 1,000 lines/s are logged", beside)):
        print(f"proposals {name}: {percentiles(times)}, mean {statistics.fmean(times) * 1e3:.2f} ms")
    print(f"median {_ratio(statistics.median, beside, alone)}, mean {_ratio(statistics.fmean, beside, alone)}")


def _ratio(figure: Callable[[list[float]], float], now: list[float], before: list[float]) -> str:
    return f"{figure(now) / figure(before) - 1:+.1%}"


def percentiles(times: list[float]) -> str:
    """Return the median and the 95th percentile of sorted times as text."""
    return f"{statistics.median(times) * 1e3:.2f} ms, 95 % within {times[int(len(times) * 0.95)] * 1e3:.2f} ms"


async def reading(url: str, run: str, seconds: float) -> None:
    """Print the latency of pages."""
    for direction in ("ASC", "DESC"):
        taken = await repeat(url, request(PAGE, run=run, by=[{"timestamp": direction}]), seconds, 1)
        print(f"page of 200 of 100,000 lines, {direction}: {percentiles(taken)}")
    taken = await repeat(url, request(TREE, run=run), seconds, 1)
    print(f"page of 200 of a tree with 100,000 lines: {percentiles(taken)}")


async def measure(
    url: str, process: psutil.Process, batch: int, clients: int, seconds: float, number: int, rounds: int
) -> None:
    """Print all figures."""
    await writing(url, process, batch, clients, seconds, number, rounds)
    (run,) = await flow_runs(url, 1)
    await fill(url, run, 100_000)
    await reading(url, run, seconds / 3)
    await proposing(url, run, seconds)


def main(
    database_url: Url, batch: int = 200, clients: int = 4, seconds: float = 5, tails: int = 100, rounds: int = 3
) -> None:
    """Start a server and print the figures."""
    with serving(database_url) as (url, process):
        uvloop.run(measure(url, process, batch, clients, seconds, tails, rounds))


if __name__ == "__main__":
    typer.run(main)
