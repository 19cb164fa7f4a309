"""The stream of the lines of logs."""

import asyncio
import math
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from typing_extensions import override

from runstate.database.bulk import table_of
from runstate.database.dialects import among_selected
from runstate.database.queries.trees import tree_of
from runstate.documents.states import RunKind
from runstate.feed.cursor import Cursor
from runstate.feed.feed import Feed
from runstate.feed.history import RunHistoryPage
from runstate.feed.lines import line_of
from runstate.feed.log import EVERYTHING, LogFilter
from runstate.feed.reader import Page, Reader
from runstate.feed.run_stream import follow_run
from runstate.feed.streams import LogStream, opened
from runstate.feed.trees import TreeFilter
from runstate.rows import Log, LogWrite

MOST_LINES: Final = 500
"""Largest number of lines in a part."""
LARGEST_SIZE: Final = 2**18
"""Size in characters from which on a part takes no more entries."""
GRACE_SECONDS: Final = 2
"""Time for which lines are awaited after the end of the run: programs send them later than the state."""


class LinePart(NamedTuple):
    """Lines, and the cursor behind them."""

    lines: list[Log]
    cursor: Cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The lines of a stream."""

    root: UUID | None = None
    """Only lines of this flow run and its subflow runs."""
    where: sa.ColumnElement[bool] | None = None
    """A condition on the table of lines."""
    until_final: bool = False
    """Whether the stream ends with the root's run."""


async def follow_lines(
    feed: Feed, wanted: Wanted, after: str | None = None, tail: int = 0
) -> AsyncGenerator[LinePart, None]:
    """Return a stream of lines after a cursor, or of the last *tail* lines and those from now on.

    The first part comes at once and may be empty. Raise InvalidInput, CursorExpired or NotFound before there is a
    stream.
    """
    hub = feed.logs
    matching: LogFilter[LogWrite] = EVERYTHING if wanted.root is None else TreeFilter(feed.trees, wanted.root)
    # Decoded before the stream is opened, so that a malformed cursor is an error and not an empty stream.
    start = None if after is None else hub.reader.decode(after)
    last = _last(wanted, tail, is_sqlite=feed.lines.database.is_sqlite)
    first = None if start or not tail else await hub.with_timeout(partial(_tail, hub.past, last))
    transitions = None
    if wanted.until_final and wanted.root is not None:
        transitions = await follow_run(feed, RunKind.FLOW_RUN, wanted.root, until_final=True)
    stream = EndingStream(hub, matching)
    pages = await opened(stream, first.cursor if first else start)
    return _parts(_Source(feed, wanted, pages, start), first, _ending(stream, transitions) if transitions else None)


class _Source(NamedTuple):
    feed: Feed
    wanted: Wanted
    pages: AsyncGenerator[Page[LogWrite], None]
    start: Cursor | None


async def _tail(reader: Reader[LogWrite], last: sa.Select[Any]) -> LinePart:
    position, rows = await reader.position_with(last)
    return LinePart([line_of(row) for row in reversed(rows)], Cursor(position))


def _last(wanted: Wanted, number: int, *, is_sqlite: bool) -> sa.Select[Any]:
    """Select the last lines, newest first."""
    table = table_of(Log)
    lines = sa.select(*table.columns).order_by(table.c.timestamp.desc(), table.c.id.desc()).limit(number)
    if wanted.where is not None:
        lines = lines.where(wanted.where)
    if wanted.root is None:
        return lines
    if is_sqlite:
        return lines.where(among_selected(table.c.flow_run_id, tree_of(wanted.root)))
    # One look into the index for each run: the planner would read the lines of all runs, in order.
    runs = tree_of(wanted.root).subquery("runs")
    last = lines.where(table.c.flow_run_id == runs.c.id).lateral("last")
    both = sa.select(last).select_from(runs.join(last, sa.true()))
    return both.order_by(last.c.timestamp.desc(), last.c.id.desc()).limit(number)


class EndingStream(LogStream[LogWrite]):
    """Entries of the log of writes, until the stream is ended and all committed entries were read."""

    is_ending = False
    is_last_poll = False
    """Whether the log was polled after the end."""

    def end(self) -> None:
        """End the stream after the entries that are committed now."""
        self.is_ending = True
        self.subscriber.has_news.set()

    @override
    async def _step(self, deadline: float) -> Page[LogWrite] | None:
        if self.is_ending and not self.is_last_poll:
            # After one more poll, everything that was committed before the end has been offered.
            await self.hub.join()
            self.is_last_poll = True
            return None
        return await super()._step(deadline)

    @override
    def _is_over(self) -> bool:
        return self.is_last_poll and self.subscriber.is_idle and not self.catching_up


async def _ending(stream: EndingStream, transitions: AsyncGenerator[RunHistoryPage, None]) -> None:
    """End a stream after the last transition of a run."""
    async with aclosing(transitions):
        async for _ in transitions:
            pass
    await asyncio.sleep(GRACE_SECONDS)
    stream.end()


async def _parts(
    source: _Source, first: LinePart | None, ending: Coroutine[Any, Any, None] | None
) -> AsyncGenerator[LinePart, None]:
    task = asyncio.ensure_future(ending) if ending else None
    try:
        async with aclosing(source.pages):
            if first:
                yield first
            async for part in _rest(source, first.cursor if first else None):
                yield part
    finally:
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _rest(source: _Source, behind: Cursor | None) -> AsyncGenerator[LinePart, None]:
    """Yield the lines of pages. Parts are empty only at the start, unless something precedes it, and as heartbeats."""
    now, hub = asyncio.get_running_loop().time, source.feed.logs
    # Without a start, the first part comes at once: it tells the subscriber its cursor.
    quiet_since = now() if behind else -math.inf
    seen = behind or source.start
    async for page in source.pages:
        for entries, cursor in _split(page, seen or page.cursor):
            lines = await hub.retry_until_available(partial(_lines, source, entries))
            # Half of it: the hub waits for a whole heartbeat after a page without lines that are wanted.
            if lines or now() - quiet_since >= hub.settings.heartbeat_seconds / 2:
                quiet_since = now()
                yield LinePart(lines, cursor)
        seen = page.cursor


async def _lines(source: _Source, entries: list[LogWrite]) -> list[Log]:
    feed, wanted = source.feed, source.wanted
    some = entries if wanted.root is None else await feed.trees.within(wanted.root, entries)
    return await feed.lines.of(some, wanted.where) if some else []


def _split(page: Page[LogWrite], seen: Cursor) -> Iterator[tuple[list[LogWrite], Cursor]]:
    """Yield the parts of a page, each with its cursor. A cursor within the page continues between its positions."""
    upto = page.cursor.upto or page.cursor.seen
    start = number = size = 0
    for place, entry in enumerate(page.entries):
        if place > start and (number + entry.lines > MOST_LINES or size > LARGEST_SIZE):
            yield page.entries[start:place], Cursor(seen.seen, upto, page.entries[place - 1].seq)
            start, number, size = place, 0, 0
        number, size = number + entry.lines, size + entry.size
    yield page.entries[start:], page.cursor
