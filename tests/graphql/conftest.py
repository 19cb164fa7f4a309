"""Fixtures for tests of GraphQL."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.applications import Starlette

from tests.client import Ask
from tests.subscribing import Listening, Socket, asking, connected, listening


@pytest.fixture
def read(app: Starlette) -> Iterator[list[str]]:
    """Yield the statements with which the application reads rows, except those of the feed and of the hub."""
    statements: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if " FROM " in " ".join(statement.split()) and "transition" not in statement and "snapshot" not in statement:
            statements.append(statement)

    reader = app.state.database.reader.sync_engine
    sa.event.listen(reader, "before_cursor_execute", note)
    yield statements
    sa.event.remove(reader, "before_cursor_execute", note)


@pytest.fixture
async def server(url: str) -> AsyncIterator[Listening]:
    """Yield a server in this process over real sockets, for subscriptions and long requests."""
    async with listening(url) as server:
        yield server


@pytest.fixture
async def live(server: Listening) -> AsyncIterator[Ask]:
    """Yield a client of the server over HTTP."""
    async with asking(server) as live:
        yield live


@pytest.fixture
async def socket(server: Listening) -> AsyncIterator[Socket]:
    """Yield a WebSocket to the server."""
    async with connected(server) as socket:
        yield socket
