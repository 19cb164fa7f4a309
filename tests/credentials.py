"""Servers that let in who has a key, and clients that have one."""

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
    """Makes keys, and takes them back, as another process would."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def make(self, name: str, scope: str = "admin", expires: datetime | None = None) -> str:
        """A new key."""
        text = keys.mint(token_bytes)
        now = datetime.now(UTC)
        await keys.create(self.database, now, text, id=uuid4(), name=name, scopes=[Scope(scope)], expires=expires)
        return text

    async def revoke(self, name: str) -> float:
        """Take a key back; when that was done, by the loop's clock."""
        assert await keys.revoke(self.database, datetime.now(UTC), name)
        return asyncio.get_running_loop().time()

    async def used(self, name: str) -> datetime | None:
        """When a key was last used."""
        return next(key.used for key in await keys.every_key(self.database) if key.name == name)


def bearing(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def asking_with(server: Listening, key: str | None, **headers: str) -> AsyncIterator[Ask]:
    """Ask over HTTP with a key."""
    base = f"http://{server.address.removesuffix('/graphql')}"
    carried = {**(bearing(key) if key else {}), **headers}
    async with httpx.AsyncClient(base_url=base, timeout=60, headers=carried) as client:
        yield Ask(client)


@asynccontextmanager
async def connected_with(server: Listening, key: str, **options: Any) -> AsyncIterator[Socket]:
    """A WebSocket that was opened with a key."""
    async with dialled(server, **options) as socket:
        assert await initialised(socket, bearing(key)) == {"type": "connection_ack"}
        yield socket


async def initialised(socket: Socket, payload: Any) -> dict[str, Any]:
    """What the first message on a socket is answered with."""
    await socket.say({"type": "connection_init", "payload": payload})
    return await socket.hear()


@asynccontextmanager
async def statements(database: Database, word: str) -> AsyncIterator[list[str]]:
    """The statements with a word in them that are executed meanwhile."""
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
