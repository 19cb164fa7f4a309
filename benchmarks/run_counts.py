"""Statements that subscribers to the same run counts cost, while runs change their state.

    python -m benchmarks.run_counts --database postgresql --subscribers 100

Starts a server with its services and a new database. Runs change their state at a constant rate for some seconds, at
first without subscribers, then with one, then with many on one socket. The output has statements per second, and events
per subscriber.
"""

import asyncio
import re
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import orjson
import typer
import uvloop
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.databases import database
from benchmarks.http_client import Client, serving

PROTOCOL: Any = ["graphql-transport-ws"]
COUNTS = "subscription { runCounts { count stateType stateName } }"
FLOW = 'mutation { it: createFlow(input: {name: "counts"}) { ... on CreateFlowPayload { flow { id } } } }'
RUN = """mutation($flow: ID!) { it: createFlowRun(input: {flowId: $flow}) {
  ... on CreateFlowRunPayload { flowRun { id } } } }"""
PROPOSE = """mutation($run: ID!, $type: StateType!) {
  it: proposeState(input: {run: {flowRunId: $run}, state: {type: $type}, force: true}) {
    ... on OrchestrationResult { status } } }"""
STATEMENTS = re.compile(r"^runstate_database_statements_total ([0-9.e+]+)", re.MULTILINE)


async def statements(url: str) -> float:
    """Return the number of statements that the server has executed."""
    async with httpx.AsyncClient() as client:
        found = STATEMENTS.search((await client.get(url.replace("/graphql", "/metrics"))).text)
    return float(found[1]) if found else 0.0


class Subscribers:
    """Subscribers on one socket, and the number of events that they have received."""

    def __init__(self, socket: ClientConnection, number: int) -> None:
        self.socket = socket
        self.number = number
        self.events = 0
        self.ready = asyncio.Event()

    async def start(self) -> None:
        """Subscribe."""
        await self.socket.send('{"type": "connection_init"}')
        await self.socket.recv()
        for number in range(self.number):
            message = {"type": "subscribe", "id": str(number), "payload": {"query": COUNTS}}
            await self.socket.send(orjson.dumps(message).decode())

    async def receive(self) -> None:
        """Count events until cancelled."""
        async for _ in self.socket:
            self.events += 1
            if self.events >= self.number:
                self.ready.set()


async def change(client: Client, runs: list[str], rate: float, seconds: float) -> int:
    """Change the state of runs at a rate; return the number of transitions."""
    start = time.monotonic()
    number = int(rate * seconds)
    for place in range(number):
        await asyncio.sleep(max(0.0, start + place / rate - time.monotonic()))
        kind = ("RUNNING", "PENDING")[place // len(runs) % 2]
        await client.execute(PROPOSE, run=runs[place % len(runs)], type=kind)
    return number


async def measure(url: str, client: Client, runs: list[str], number: int, rate: float, seconds: float) -> None:
    """Measure one number of subscribers and print a line."""
    async with AsyncExitStack() as opened:
        socket = await opened.enter_async_context(
            connect(url.replace("http", "ws"), subprotocols=PROTOCOL, max_size=None)
        )
        subscribers = Subscribers(socket, number)
        await subscribers.start()
        task = asyncio.create_task(subscribers.receive())
        if number:
            await subscribers.ready.wait()
        before, events, start = await statements(url), subscribers.events, time.monotonic()
        transitions = await change(client, runs, rate, seconds)
        passed, executed = time.monotonic() - start, await statements(url) - before
        task.cancel()
    received = (subscribers.events - events) / max(number, 1)
    print(
        f"{number:5} subscribers: {executed / passed:6.1f} statements/s at {transitions / passed:.1f} transitions/s;"
        f" {received:.1f} events each",
        flush=True,
    )


async def run(url: str, number: int, rate: float, seconds: float) -> None:
    """Create runs and measure different numbers of subscribers."""
    client = await Client.connect(url)
    flow = (await client.execute(FLOW))["it"]["flow"]["id"]
    runs = [(await client.execute(RUN, flow=flow))["it"]["flowRun"]["id"] for _ in range(30)]
    for subscribers in (0, 1, number):
        await measure(url, client, runs, subscribers, rate, seconds)
    client.close()


def main(
    database_kind: str = typer.Option("postgresql", "--database", help="`sqlite` or `postgresql`."),
    subscribers: int = typer.Option(100, help="Number of subscribers."),
    rate: float = typer.Option(7.0, help="Transitions per second."),
    seconds: float = typer.Option(10.0, help="Duration of each measurement."),
) -> None:
    """Measure the statements that subscribers cost."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        database(database_kind, Path(folder)) as database_url,
        serving(database_url, RUNSTATE_SERVICES="all") as (url, _),
    ):
        uvloop.run(run(url, subscribers, rate, seconds))


if __name__ == "__main__":
    typer.run(main)
