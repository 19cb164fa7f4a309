"""Many subscribers, and those that take nothing, leave time for proposals and for other clients."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from tests.client import Ask
from tests.graphql.mutations import make_flow_run, propose
from tests.hostile.attacking import INIT, UPGRADE, Attacker, attackers, frame
from tests.hostile.watching import base_of, watched
from tests.serving import Serve, Server
from tests.subscribing import PROTOCOL

MB = 2**20
PROPOSALS = 30
PER_SOCKET = 100
SAME = "subscription { transitions { cursor transitions { version run { id name labels } } } }"
STATEMENTS = re.compile(r"^runstate_database_statements_total ([0-9.e+]+)", re.MULTILINE)


def message(number: int, document: str) -> str:
    """Return the message that starts a subscription."""
    return json.dumps({"type": "subscribe", "id": str(number), "payload": {"query": document}})


@asynccontextmanager
async def subscribed(server: Server, documents: list[str]) -> AsyncIterator[list[ClientConnection]]:
    """Open sockets with subscriptions to these documents. All have had their first event."""
    async with AsyncExitStack() as opened:
        sockets = []
        for start in range(0, len(documents), PER_SOCKET):
            connecting = websockets.connect(
                server.url.replace("http", "ws"), subprotocols=PROTOCOL, max_size=None, max_queue=None
            )
            socket = await opened.enter_async_context(connecting)
            sockets.append(socket)
            some = documents[start : start + PER_SOCKET]
            await socket.send(INIT)
            for number, document in enumerate(some):
                await socket.send(message(number, document))
            for _ in range(1 + len(some)):
                await socket.recv()
        yield sockets


async def transitions(socket: ClientConnection, number: int, subscribers: int) -> dict[str, list[Any]]:
    """Return the transitions that each subscriber on a socket receives, as many as it waits for."""
    received: dict[str, list[Any]] = {str(each): [] for each in range(subscribers)}
    while any(len(each) < number for each in received.values()):
        text = json.loads(await socket.recv())
        if text["type"] != "ping":
            received[text["id"]] += text["payload"]["data"]["transitions"]["transitions"]
    return received


async def statements(client: httpx.AsyncClient) -> float:
    """Return the number of statements that the server has executed."""
    found = STATEMENTS.search((await client.get("/metrics")).text)
    return float(found[1]) if found else 0.0


async def test_subscribers_to_the_same_share_statements_and_miss_nothing(serve: Serve) -> None:
    server, number = await serve(RUNSTATE_SERVICES="off"), 60
    async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
        ask = Ask(client)
        run = await make_flow_run(ask, state={"type": "RUNNING"}, labels={"a": [1, 1.5, None]})
        async with subscribed(server, [SAME] * number) as (socket,), asyncio.timeout(60):
            before = await statements(client)
            for _ in range(PROPOSALS):
                await propose(ask, run, "RUNNING")
            received = await transitions(socket, PROPOSALS, number)
            executed = await statements(client) - before

    for each in received.values():
        assert [entry["version"] for entry in each] == list(range(2, PROPOSALS + 2))
        assert all(entry["run"]["labels"] == {"a": [1, 1.5, None]} for entry in each)
    assert executed < PROPOSALS * number / 2


@pytest.mark.parametrize("documents", ["same", "different"])
async def test_many_subscribers_leave_time_for_proposals(serve: Serve, documents: str) -> None:
    server = await serve()
    asked = [SAME if documents == "same" else SAME.replace("name", f"n{each}: name") for each in range(200)]
    async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
        ask, took = Ask(client), list[float]()
        run = await make_flow_run(ask, state={"type": "RUNNING"})
        async with subscribed(server, asked) as sockets, watched(server, path="/readyz") as watch:
            reading = [asyncio.create_task(read(socket)) for socket in sockets]
            for _ in range(PROPOSALS):
                began = time.monotonic()
                assert (await propose(ask, run, "RUNNING"))["status"] == "ACCEPT"
                took.append(time.monotonic() - began)
            for each in reading:
                each.cancel()
            await asyncio.gather(*reading, return_exceptions=True)

    assert {*watch.statuses} == {200}
    assert watch.slowest < 2
    assert watch.growth_bytes < 50 * MB
    assert sorted(took)[len(took) // 2] < 0.3


async def read(socket: ClientConnection) -> None:
    """Receive and drop events."""
    with suppress(websockets.ConnectionClosed):
        while True:
            await socket.recv()


@pytest.mark.parametrize(("documents", "held", "kept"), [("same", 0, 0), ("different", 64 * MB, 25 * MB)])
async def test_subscribers_that_take_nothing_fill_no_memory(serve: Serve, documents: str, held: int, kept: int) -> None:
    """Different documents have answers of their own, in the room for them, and are cached with their plans."""
    server = await serve()
    wide = SAME.replace("name", " ".join(f"n{each}: labels" for each in range(60)))
    asked = (wide if documents == "same" else wide.replace("n0", f"m{each}") for each in range(200))

    async def subscribe(each: Attacker) -> None:
        await each.send(UPGRADE)
        await each.reader.readuntil(b"\r\n\r\n")
        messages = (frame(1, message(number, next(asked)).encode()) for number in range(20))
        await each.send(frame(1, INIT.encode()) + b"".join(messages))

    async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
        ask = Ask(client)
        run = await make_flow_run(ask, state={"type": "RUNNING"}, labels={"a": "x" * 20_000})
        async with watched(server) as watch, attackers(server, 10) as hostile:
            await asyncio.gather(*map(subscribe, hostile))
            for _ in range(PROPOSALS):
                await propose(ask, run, "RUNNING")

    assert {*watch.statuses} == {200}
    assert watch.slowest < 2
    assert watch.growth_bytes < held + 50 * MB, f"grew by {watch.growth_bytes / MB:.0f} MB"
    assert await watch.settled(kept + 25 * MB) < kept + 25 * MB
