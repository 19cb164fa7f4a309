"""Measurements of a server process under attack: its memory, and the answers to a friendly client."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.serving import Server

SAMPLE_SECONDS = 0.05
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Watch:
    """Measurements taken while a server is attacked."""

    server: Server
    idle_bytes: int
    """Resident memory before the attack."""
    peak_bytes: int = 0
    """Largest resident memory during the attack."""
    seconds: list[float] = field(default_factory=list)
    """Seconds that each request of the friendly client took."""
    statuses: list[int] = field(default_factory=list)
    """HTTP status of each answer to the friendly client."""
    over: bool = False
    """Whether the attack has ended."""

    @property
    def above_bytes(self) -> int:
        """Resident memory now above the idle server's."""
        return memory_of(self.server) - self.idle_bytes

    @property
    def growth_bytes(self) -> int:
        """Largest resident memory above the idle server's."""
        return self.peak_bytes - self.idle_bytes

    @property
    def slowest(self) -> float:
        """Seconds that the slowest request of the friendly client took."""
        return max(self.seconds)

    async def settled(self, within_bytes: int, seconds: float = 30) -> int:
        """Wait until memory is at most so far above idle; return how far it is above at the end."""
        until = time.monotonic() + seconds
        while self.above_bytes > within_bytes and time.monotonic() < until:  # noqa: ASYNC110 it is another process
            await asyncio.sleep(SAMPLE_SECONDS)
        return self.above_bytes


def memory_of(server: Server) -> int:
    """Return the resident memory of a server process in bytes."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * PAGE_BYTES


def base_of(server: Server) -> str:
    """Return the URL of a server without the path of its GraphQL endpoint."""
    return server.url.removesuffix("/graphql")


@asynccontextmanager
async def watched(server: Server, document: str = "{ __typename }", path: str | None = None) -> AsyncIterator[Watch]:
    """Measure the server and a friendly client while the block runs.

    The friendly client sends a query, or requests a path, repeatedly on one connection.
    """
    async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
        await _ask(client, document, path)
        watch = Watch(server, memory_of(server))
        tasks = [asyncio.create_task(_sample(watch)), asyncio.create_task(_befriend(watch, client, document, path))]
        try:
            yield watch
        finally:
            watch.over = True
            await asyncio.gather(*tasks)


async def _sample(watch: Watch) -> None:
    while not watch.over:
        watch.peak_bytes = max(watch.peak_bytes, memory_of(watch.server))
        await asyncio.sleep(SAMPLE_SECONDS)


async def _befriend(watch: Watch, client: httpx.AsyncClient, document: str, path: str | None) -> None:
    while not watch.over:
        began = time.monotonic()
        answer = await _ask(client, document, path)
        watch.seconds.append(time.monotonic() - began)
        watch.statuses.append(answer.status_code)
        await asyncio.sleep(SAMPLE_SECONDS)


async def _ask(client: httpx.AsyncClient, document: str, path: str | None) -> httpx.Response:
    if path is not None:
        return await client.get(path)
    return await client.post("/graphql", json={"query": document})
