"""A server in this process, and clients of it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from runstate.client import AsyncClient, Client
from tests.client import Ask
from tests.subscribing import Listening, asking, listening

HEARTBEAT_SECONDS = 1.0


@pytest.fixture
async def server(url: str) -> AsyncIterator[Listening]:
    """Yield a server without background services."""
    async with listening(url) as server:
        yield server


@pytest.fixture
async def ask(server: Listening) -> AsyncIterator[Ask]:
    """Yield a function that asks the server."""
    async with asking(server) as ask:
        yield ask


@pytest.fixture
async def client(server: Listening) -> AsyncIterator[Client]:
    """Yield a client that blocks; it is used in threads, because the server shares the loop of the test."""
    client = Client(server.address, heartbeat_seconds=HEARTBEAT_SECONDS)
    yield client
    await asyncio.to_thread(client.close)


@pytest.fixture
async def aclient(server: Listening) -> AsyncIterator[AsyncClient]:
    """Yield a client that is awaited."""
    async with AsyncClient(server.address, heartbeat_seconds=HEARTBEAT_SECONDS) as client:
        yield client
