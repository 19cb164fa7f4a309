"""Clients as processes of their own: one is killed while it holds a slot, one outlives its server."""

import asyncio
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGKILL
from typing import Any, Final

import httpx
import orjson
import websockets

from tests.client import Ask
from tests.graphql.mutations import create, make_task_run, propose
from tests.serving import Serve, Server
from tests.subscribing import PROTOCOL

CLIENT: Final = Path(__file__).parent / "beating.py"
HEARTBEAT_SECONDS: Final = 2.0
INTERVAL_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 60
SERVICE: Final = {
    "RUNSTATE_SERVICES": "heartbeats",
    "RUNSTATE_SERVICE_INTERVALS": f'{{"heartbeats": {INTERVAL_SECONDS}}}',
}


class Client:
    """A client process."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def answer(self, *having: str) -> str:
        """Return its next answer from the server that has these texts."""
        assert self.process.stdout
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                line = (await self.process.stdout.readline()).decode()
                assert line, "the client has ended"
                if all(each in line for each in having):
                    return line

    async def answers(self, number: int) -> None:
        """Wait for a number of heartbeats after which the run is still RUNNING."""
        for _ in range(number):
            assert '"RUNNING"' in await self.answer("stateType")


@asynccontextmanager
async def running(url: str, run: str, seconds: float) -> AsyncIterator[Client]:
    """Yield a client that runs a task run with heartbeats at intervals; it is killed at the end."""
    command = (sys.executable, str(CLIENT), url, run, str(seconds))
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    try:
        yield Client(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def asking(server: Server) -> AsyncIterator[Ask]:
    """Yield a client that asks a server."""
    async with httpx.AsyncClient(base_url=server.url.removesuffix("/graphql"), timeout=PATIENCE_SECONDS) as client:
        yield Ask(client)


async def history(ask: Ask, run: str) -> list[Any]:
    """Return the states of a task run."""
    document = "query($id: ID!) { taskRun(id: $id) { states { nodes { type actor message } } } }"
    return list((await ask(document, id=run))["taskRun"]["states"]["nodes"])


async def acquires(server: Server, ask: Ask, run: str) -> None:
    """Propose RUNNING for a run whenever slots become free, until it is accepted."""
    async with websockets.connect(f"ws{server.url.removeprefix('http')}", subprotocols=PROTOCOL) as connection:
        await connection.send('{"type": "connection_init"}')
        query = 'subscription { slotsFreed(names: ["tag:db"]) { name slots } }'
        payload = {"id": "1", "type": "subscribe", "payload": {"query": query}}
        await connection.send(orjson.dumps(payload).decode())
        while (await propose(ask, run, "RUNNING", task=True))["status"] != "ACCEPT":
            while orjson.loads(await connection.recv())["type"] != "next":
                pass


async def test_the_slot_of_a_killed_client_is_free_after_three_intervals(serve: Serve) -> None:
    server = await serve(**SERVICE)
    async with asking(server) as ask:
        await create(ask, "concurrencyLimit", name="tag:db", limit=1)
        runs = [
            await make_task_run(ask, str(each), tags=["db"], heartbeatSeconds=HEARTBEAT_SECONDS) for each in range(2)
        ]
        async with running(server.url, runs[0], HEARTBEAT_SECONDS) as client:
            assert '"ACCEPT"' in await client.answer("proposeState")
            await client.answers(5)
            assert (await propose(ask, runs[1], "RUNNING", task=True))["status"] == "WAIT"
            await asyncio.sleep(HEARTBEAT_SECONDS / 2)
            client.process.send_signal(SIGKILL)
            await client.process.wait()
            killed = time.monotonic()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await acquires(server, ask, runs[1])
            took = time.monotonic() - killed

        assert took <= 3 * HEARTBEAT_SECONDS + INTERVAL_SECONDS
        state = (await history(ask, runs[0]))[-1]
        assert (state["type"], state["actor"]) == ("CRASHED", "service:heartbeats")
        assert state["message"].startswith("Not heard of for ")


async def test_a_client_that_beats_through_a_restart_of_its_server_is_not_crashed(serve: Serve) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = str(reserved.getsockname()[1])
    server = await serve(**SERVICE, RUNSTATE_PORT=port)
    async with asking(server) as ask:
        run = await make_task_run(ask, heartbeatSeconds=1)
    async with running(server.url, run, 0.5) as client:
        await client.answers(8)
        await server.stop(SIGKILL)
        for _ in range(8):
            await client.answer("unreachable")
        server = await serve(**SERVICE, RUNSTATE_PORT=port)
        await client.answers(12)

        async with asking(server) as ask:
            assert [each["type"] for each in await history(ask, run)] == ["PENDING", "RUNNING"]
