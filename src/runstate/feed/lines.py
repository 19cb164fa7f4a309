"""The lines of logs behind entries of the log of writes: those that this process has written, or read once for all."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from runstate.database import Database
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.database.driver import fetch
from runstate.rows import Log, LogWrite

TABLE: Final = table_of(Log)
NAMES: Final = tuple(TABLE.columns.keys())
LARGEST_CACHE: Final = 2**23
"""Approximate number of characters of lines that are kept."""

Clause = sa.ColumnElement[bool]
Groups = dict[UUID, list[Log]]
"""Lines by the first id of their entry."""


class Lines:
    """The lines of entries. Subscribers that need the same entry at about the same time share one statement."""

    def __init__(
        self,
        database: Database,
        capacity: int = LARGEST_CACHE,
        is_awaited: Callable[[LogWrite], bool] = lambda _: False,
    ) -> None:
        self.database = database
        self.capacity = capacity
        self.is_awaited = is_awaited
        """Returns whether a subscriber will need the lines of a new entry."""
        self.reads: dict[UUID, tuple[int, asyncio.Future[Groups]]] = {}
        """Size and read of each entry, oldest first."""
        self.size = 0

    def keep(self, entry: LogWrite, lines: list[Log]) -> None:
        """Keep the committed lines of an entry, so that they are not read."""
        if entry.first_id not in self.reads:
            kept: asyncio.Future[Groups] = asyncio.get_running_loop().create_future()
            kept.set_result({entry.first_id: lines})
            self._add(entry, kept)
            self._shrink()

    async def of(self, entries: Sequence[LogWrite], where: Clause | None = None) -> list[Log]:
        """Return the lines of entries, in order, without deleted ones; with a condition, those that meet it."""
        # With a condition nothing is shared: the kept lines are whole entries.
        if where is not None:
            return _in_order(entries, await self._read(entries, where))
        missing = [entry for entry in entries if entry.first_id not in self.reads]
        if missing:
            self._start(missing)
        groups: Groups = {}
        for read in {self.reads[entry.first_id][1] for entry in entries}:
            # Without the shield, a subscriber that leaves would cancel the read of the others.
            groups |= await asyncio.shield(read)
        return _in_order(entries, groups)

    def _start(self, entries: Sequence[LogWrite]) -> None:
        read = asyncio.ensure_future(self._read(entries))
        for entry in entries:
            self._add(entry, read)
        read.add_done_callback(lambda done: self._end(entries, failed=bool(done.cancelled() or done.exception())))

    def _end(self, entries: Sequence[LogWrite], *, failed: bool) -> None:
        """Forget a failed read, and the oldest reads if there are too many."""
        for entry in entries if failed else ():
            self._forget(entry.first_id)
        self._shrink()

    def _add(self, entry: LogWrite, read: "asyncio.Future[Groups]") -> None:
        self.reads[entry.first_id] = entry.size, read
        self.size += entry.size

    def _shrink(self) -> None:
        while self.size > self.capacity:
            oldest = next(iter(self.reads))
            # A running read has waiters, so the cache is larger for as long as it takes.
            if not self.reads[oldest][1].done():
                return
            self._forget(oldest)

    def _forget(self, first_id: UUID) -> None:
        size, _ = self.reads.pop(first_id, (0, None))
        self.size -= size

    async def _read(self, entries: Sequence[LogWrite], where: Clause | None = None) -> Groups:
        ids = {entry.first_id: _ids(entry) for entry in entries}
        wanted = list(chain.from_iterable(ids.values()))
        statement = sa.select(*TABLE.columns).where(among(TABLE.c.id, wanted))
        async with self.database.read() as connection:
            rows = await fetch(connection, statement if where is None else statement.where(where))
        by_id = {line.id: line for line in map(line_of, rows)}
        return {first: [by_id[each] for each in some if each in by_id] for first, some in ids.items()}


def line_of(values: Sequence[Any]) -> Log:
    """Return the line with these values of all columns."""
    return Log.of(zip(NAMES, values, strict=True))


def _ids(entry: LogWrite) -> list[UUID]:
    # Ids of one write are consecutive, so the entry need not list them.
    first = entry.first_id.int
    return [UUID(int=first + number) for number in range(entry.lines)]


def _in_order(entries: Sequence[LogWrite], groups: Groups) -> list[Log]:
    return [line for entry in entries for line in groups[entry.first_id]]
