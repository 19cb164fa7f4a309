"""Servers that require an API key, and clients that send one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from secrets import token_bytes
from typing import Any
from uuid import uuid4

import httpx
import sqlalchemy as sa

from runstate.core.access import keys
from runstate.database import Database
from runstate.documents.access import Scope
from tests.client import Ask
from tests.subscribing import Listening, Socket, dialled


class Keys:
    """Creates and revokes API keys like another process."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def make(self, name: str, scope: str = "admin", expires: datetime | None = None) -> str:
        """Create a key; return its text."""
        text = keys.mint(token_bytes)
        now = datetime.now(UTC)
        await keys.create(
            self.database, now, text, id=uuid4(), name=name, scopes=map(Scope, scope.split()), expires=expires
        )
        return text

    async def revoke(self, name: str) -> float:
        """Revoke a key; return the time of the event loop after that."""
        assert await keys.revoke(self.database, datetime.now(UTC), name)
        return asyncio.get_running_loop().time()

    async def used(self, name: str) -> datetime | None:
        """Return when a key was last used."""
        return next(key.used for key in await keys.every_key(self.database) if key.name == name)


def bearing(key: str) -> dict[str, str]:
    """Return the header with a key."""
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def asking_with(server: Listening, key: str | None, **headers: str) -> AsyncIterator[Ask]:
    """Yield a client over HTTP that sends a key."""
    base = f"http://{server.address.removesuffix('/graphql')}"
    carried = {**(bearing(key) if key else {}), **headers}
    async with httpx.AsyncClient(base_url=base, timeout=60, headers=carried) as client:
        yield Ask(client)


@asynccontextmanager
async def connected_with(server: Listening, key: str, **options: Any) -> AsyncIterator[Socket]:
    """Yield a WebSocket that is initialized with a key."""
    async with dialled(server, **options) as socket:
        assert await initialised(socket, bearing(key)) == {"type": "connection_ack"}
        yield socket


async def initialised(socket: Socket, payload: Any) -> dict[str, Any]:
    """Send `connection_init` with a payload; return the reply."""
    await socket.say({"type": "connection_init", "payload": payload})
    return await socket.hear()


@asynccontextmanager
async def statements(database: Database, word: str) -> AsyncIterator[list[str]]:
    """Record the executed statements that contain a word."""
    found: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if word in statement:
            found.append(statement)

    both = [database.writer, database.reader] if database.is_sqlite else [database.reader]
    for engine in both:
        sa.event.listen(engine.sync_engine, "before_cursor_execute", note)
    yield found
    for engine in both:
        sa.event.remove(engine.sync_engine, "before_cursor_execute", note)
