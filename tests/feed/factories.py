"""Entries of the log as the batch writes them: the versions of a run in order."""

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database import Database
from runstate.documents.states import RunKind, StateType
from runstate.feed import TRANSITIONS, Page, Reader
from runstate.feed.cursor import Cursor, Position
from runstate.feed.log import T
from runstate.rows import LogEntry, Transition

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def entry(run_id: UUID, version: int = 1, **columns: Any) -> dict[str, Any]:
    """Return the columns of an entry: a run enters a state."""
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
    """Insert entries in the transaction of a connection."""
    await connection.execute(sa.insert(Transition), list(entries))


async def write(database: Database, *entries: dict[str, Any]) -> None:
    """Insert entries in a transaction of their own."""
    async with database.write() as transaction:
        await insert(transaction.connection, *entries)


async def open_reader(database: Database, page_size: int = 100) -> Reader[Transition]:
    """Return a reader of the log of transitions."""
    return await Reader.open(database, TRANSITIONS, page_size)


async def read_all(reader: Reader[T], cursor: Cursor) -> Page[T]:
    """Return all entries after a cursor; the cursor is encoded and decoded between pages."""
    found: list[T] = []
    while True:
        page = await reader.page(cursor)
        found += page.entries
        cursor = reader.decode(reader.encode(page.cursor))
        assert cursor == page.cursor
        if page.complete:
            return Page(found, cursor)


def states(entries: Iterable[Any]) -> list[UUID]:
    """Return the ids of the entered states."""
    return [each["state_id"] if isinstance(each, dict) else each.state_id for each in entries]


def end(position: Position) -> Position:
    """Return the end of the log without transactions in progress: tests of other processes share the server."""
    return replace(position, xip=())


class Writers:
    """Transactions that begin, insert, commit and roll back in random order, as far as row locks allow."""

    def __init__(
        self,
        database: Database,
        chance: random.Random,
        runs: int = 6,
        row: type[LogEntry] = Transition,
        make: Callable[[UUID, int], dict[str, Any]] = entry,
    ) -> None:
        self.database = database
        self.row = row
        self.make = make
        self.chance = chance
        self.versions = {uuid4(): 0 for _ in range(runs)}
        self.at_once = 1 if database.is_sqlite else 6
        self.open: dict[AsyncConnection, dict[UUID, int]] = {}
        self.committed: list[dict[str, Any]] = []
        self.pending: dict[AsyncConnection, list[dict[str, Any]]] = {}

    async def step(self) -> None:
        """Take one step in one of the transactions."""
        if self.open and (self.chance.random() < 0.4 or len(self.open) == self.at_once):
            await self._end(self.chance.choice(list(self.open)))
        elif self.open and self.chance.random() < 0.6:
            await self._write(self.chance.choice(list(self.open)))
        else:
            await self._begin()

    async def end(self) -> None:
        """End every open transaction."""
        for connection in list(self.open):
            await self._end(connection)

    async def _begin(self) -> None:
        connection = await self.database.writer.connect()
        await connection.begin()
        self.open[connection], self.pending[connection] = {}, []
        if not self.database.is_sqlite and self.chance.random() < 0.5:
            await connection.execute(sa.select(sa.func.pg_current_xact_id()))

    async def _write(self, connection: AsyncConnection) -> None:
        locked = {run for runs in self.open.values() for run in runs} - set(self.open[connection])
        free = [run for run in self.versions if run not in locked]
        if not free:
            return
        run = self.chance.choice(free)
        version = self.open[connection].get(run, self.versions[run]) + 1
        self.open[connection][run] = version
        written = self.make(run, version)
        self.pending[connection].append(written)
        await connection.execute(sa.insert(self.row), [written])

    async def _end(self, connection: AsyncConnection) -> None:
        versions, entries = self.open.pop(connection), self.pending.pop(connection)
        if self.chance.random() < 0.8:
            await connection.commit()
            self.versions |= versions
            self.committed += entries
        else:
            await connection.rollback()
        await connection.close()
