"""Background tasks: offered to one process at a time, and again if it goes away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from runstate.core.checks.verify import verify
from runstate.database import Database
from tests.prefect.reporting import PROTOCOL
from tests.subscribing import Listening

KEY = "far-1"


@pytest.fixture
async def client(server: Listening) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the server."""
    async with httpx.AsyncClient(base_url=f"http://{server.address.replace('/graphql', '/api')}") as client:
        yield client


@asynccontextmanager
async def subscribed(server: Listening, *keys: str) -> AsyncIterator[ClientConnection]:
    url = f"ws://{server.address.replace('/graphql', '/api/task_runs/subscriptions/scheduled')}"
    async with websockets.connect(url, subprotocols=PROTOCOL) as socket:
        await socket.send('{"type":"auth","token":null}')
        await socket.recv()
        await socket.send(orjson.dumps({"type": "subscribe", "keys": keys, "client_id": "me"}).decode())
        yield socket


async def delayed(client: httpx.AsyncClient, **details: Any) -> str:
    """Create a background task run and return its id."""
    state = {"type": "SCHEDULED", "state_details": {"deferred": True, "task_parameters_id": str(uuid4()), **details}}
    made = await client.post("/task_runs/", json={"task_key": KEY, "dynamic_key": str(uuid4()), "state": state})
    return str(made.json()["id"])


async def taken(socket: ClientConnection) -> Any:
    async with asyncio.timeout(20):
        run = orjson.loads(await socket.recv())
    await socket.send('{"type":"ack"}')
    return run


async def state_of(client: httpx.AsyncClient, id: str) -> str:
    return str((await client.get(f"/task_runs/{id}")).json()["state_name"])


async def test_each_task_run_is_delivered_once_as_it_was_scheduled(
    server: Listening, client: httpx.AsyncClient, database: Database
) -> None:
    ids = {await delayed(client) for _ in range(2)}
    async with subscribed(server, KEY, "other") as one, subscribed(server, KEY) as two:
        ids |= {await delayed(client) for _ in range(2)}
        found = asyncio.Queue[Any]()

        async def take(socket: ClientConnection) -> None:
            while True:
                found.put_nowait(await taken(socket))

        takers = [asyncio.create_task(take(each)) for each in (one, two)]
        runs = [await found.get() for _ in ids]
        for taker in takers:
            taker.cancel()

    assert {each["id"] for each in runs} == ids
    assert {each["state_name"] for each in runs} == {"Scheduled"}
    assert all(each["state"]["state_details"]["task_parameters_id"] for each in runs)
    assert {await state_of(client, each) for each in ids} == {"Offered"}
    assert await verify(database, datetime.now(UTC)) == []


async def test_a_task_run_that_is_not_acknowledged_is_delivered_to_another_process(
    server: Listening, client: httpx.AsyncClient
) -> None:
    made = await delayed(client)

    async with subscribed(server, KEY) as one:
        assert orjson.loads(await one.recv())["id"] == made
    async with subscribed(server, KEY) as two:
        assert (await taken(two))["id"] == made


async def test_task_runs_that_nobody_asked_for_or_that_are_not_due_are_kept(
    server: Listening, client: httpx.AsyncClient
) -> None:
    later, due = await delayed(client, scheduled_time="2999-01-01T00:00:00Z"), await delayed(client)

    async with subscribed(server, "other"), subscribed(server, KEY) as socket:
        assert (await taken(socket))["id"] == due
    assert await state_of(client, later) == "Scheduled"


async def test_another_first_message_closes_the_socket(server: Listening) -> None:
    url = f"ws://{server.address.replace('/graphql', '/api/task_runs/subscriptions/scheduled')}"
    async with websockets.connect(url, subprotocols=PROTOCOL) as socket:
        await socket.send('{"type":"auth","token":null}')
        await socket.recv()
        await socket.send('{"type":"what"}')
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 4001
