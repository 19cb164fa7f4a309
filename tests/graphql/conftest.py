"""Fixtures for tests of GraphQL."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.applications import Starlette

from runstate.core.checks.verify import verify
from tests.client import IS_ASKING
from tests.subscribing import Listening, Socket, connected


@pytest.fixture
def read(app: Starlette) -> Iterator[list[str]]:
    """Yield the statements with which the operations of the test read rows."""
    statements: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        # Services, the feed and the allowlist read in the background.
        if IS_ASKING.get() and " FROM " in " ".join(statement.split()):
            statements.append(statement)

    reader = app.state.database.reader.sync_engine
    sa.event.listen(reader, "before_cursor_execute", note)
    yield statements
    sa.event.remove(reader, "before_cursor_execute", note)


@pytest.fixture
async def socket(server: Listening) -> AsyncIterator[Socket]:
    """Yield a WebSocket to the server."""
    async with connected(server) as socket:
        yield socket


@pytest.fixture
async def consistent(app: Starlette) -> AsyncIterator[None]:
    """Verifies after the test that nothing was lost, written by half or written twice."""
    yield
    assert await verify(app.state.database, datetime.now(UTC)) == []


@pytest.fixture
def serve_later(app: Starlette) -> Callable[..., Awaitable[int]]:
    """Has a service do its work as if some time had passed."""

    def run(service: Any, **span: float) -> Awaitable[int]:
        done: Awaitable[int] = service.run_once(app.state.batcher, datetime.now(UTC) + timedelta(**span))
        return done

    return run
