"""Entries of the log, written as the rules would write them: a run's versions one after another."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database import Database
from runstate.documents.states import RunKind, StateType
from runstate.feed import Page, Reader
from runstate.feed.cursor import Cursor
from runstate.feed.installation import identify
from runstate.feed.reader import log
from runstate.rows import Transition

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def entry(run_id: UUID, version: int = 1, **columns: Any) -> dict[str, Any]:
    """What is logged when a run enters a state."""
    return {
        "run_kind": RunKind.FLOW_RUN,
        "run_id": run_id,
        "state_id": uuid4(),
        "flow_run_id": run_id,
        "version": version,
        "occurred": NOON,
        "state_type": StateType.RUNNING,
        "state_name": "Running",
        "tags": [],
        **columns,
    }


async def insert(connection: AsyncConnection, *entries: dict[str, Any]) -> None:
    """Add entries to the log, in a transaction that is under way."""
    await connection.execute(sa.insert(log), list(entries))


async def write(database: Database, *entries: dict[str, Any]) -> None:
    """Add entries to the log, in a transaction of their own."""
    async with database.write() as transaction:
        await insert(transaction.connection, *entries)


async def a_reader(database: Database, at_once: int = 100) -> Reader:
    """A reader of the database's log."""
    return Reader(database, await identify(database), at_once)


async def read_all(reader: Reader, cursor: Cursor) -> Page:
    """Everything after a cursor; between two pages the cursor goes to a client and back."""
    found: list[Transition] = []
    while True:
        page = await reader.page(cursor)
        found += page.transitions
        cursor = Cursor.decode(page.cursor.encode(reader.installation), reader.installation)
        assert cursor == page.cursor
        if page.complete:
            return Page(found, cursor)


def states(entries: Iterable[Any]) -> list[UUID]:
    """Which states were entered."""
    return [each["state_id"] if isinstance(each, dict) else each.state_id for each in entries]
