"""The evaluator: one process at a time reads the log and lets triggers step over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.automations.events import Event
from runstate.core.automations.index import Index
from runstate.core.automations.state import State
from runstate.core.automations.steps import Fired, Input, step
from runstate.core.automations.stored import COLUMNS, chains_of, of_row
from runstate.core.evaluation import measuring, storage
from runstate.core.evaluation.definitions import CHANGES, DEFINITION, Evaluated
from runstate.core.evaluation.firings import action_rows, firing_row, told_of
from runstate.core.evaluation.touched import Touched
from runstate.core.telling import tell_once
from runstate.database import Database, Transaction, bulk
from runstate.database.bulk import inserted, table_of
from runstate.database.dialects import DatabaseTime, among, insert_or_skip
from runstate.database.driver import fetch
from runstate.errors import CursorExpired, InvalidInput
from runstate.feed import EVENTS, Reader
from runstate.feed.cursor import Cursor
from runstate.feed.event_filter import EventFilter
from runstate.feed.reader import Page
from runstate.rows import AutomationActionRun, AutomationFiring, EvaluatedRound, LogReader
from runstate.rows import Event as AnyEvent
from runstate.rows.base import EPOCH

NAME: Final = "automations"
"""Name of the reader."""
PAGE_SIZE: Final = 500
MOST_ROUNDS: Final = 100
"""Maximum number of rounds of a call."""
MOST_FIRINGS: Final = 2_000
"""Number of firings after which a round ends before its page does."""
LEASE: Final = timedelta(seconds=15)
"""Time after its last round from which another process may take over from a leader."""
RENEWAL: Final = timedelta(seconds=5)
"""Time after which the lease is renewed, and a cursor without further changes is written."""
COMMIT_TIME: Final = timedelta(seconds=1)
"""Longest time from the arrival of an event to its commit: later than that, deadlines do not wait for it."""
CHANGES_ONLY: Final = EventFilter(names=tuple(sorted(CHANGES)))
READER: Final = table_of(LogReader)

Firings = tuple[Fired, Evaluated]
"""A firing, and the automation when it fired."""

log = structlog.get_logger(__name__)


class Lost(Exception):
    """Another process leads, so that nothing of the round was written."""


class Evaluator:
    """Evaluates the log in rounds, while it holds the lease. What it remembers is what the leader has stored."""

    def __init__(self, database: Database, clock: Callable[[], datetime], page_size: int = PAGE_SIZE) -> None:
        self.database = database
        self.clock = clock
        self.page_size = page_size
        self.most_firings = MOST_FIRINGS
        self.id = uuid4()
        self.reader: Reader[AnyEvent] | None = None
        self.is_loaded = False
        self.is_behind = False
        self.rounds = 0
        self.written_at: datetime | None = None
        self.measured_at: datetime | None = None
        self.cursor: Cursor
        self.state: State
        self.automations: storage.Automations = {}
        self.index = Index()
        self.changed: set[UUID] = set()

    async def run_once(self) -> int:
        """Evaluate the log, up to its end if that is not too far; return the number of firings.

        0 if another process leads. `is_behind` says whether there is more.
        """
        fired = 0
        try:
            if not await self._lead():
                return 0
            for _ in range(MOST_ROUNDS):
                self.is_behind, number = await self._round()
                fired += number
                if not self.is_behind:
                    break
        except Lost:
            self.is_loaded = False
        except BaseException:
            # It is unknown what was written.
            self.is_loaded = False
            raise
        return fired

    async def release(self) -> None:
        """Let another process take over at once."""
        if self.is_loaded:
            self.is_loaded = False
            free = self._guarded(self.rounds).where(READER.c.leader == self.id).values(leader=None)
            async with self.database.write() as transaction:
                await transaction.connection.execute(free)

    async def _lead(self) -> bool:
        """Take or keep the lease; load what is stored if this process did not write it."""
        if self.reader is None:
            self.reader = await Reader.open(self.database, EVENTS, self.page_size)
        now, row = self.clock(), await self._row()
        if row is None:
            await self._begin(now)
            row = await self._row()
        if row.leader == self.id and self.is_loaded and row.rounds == self.rounds:
            return True
        # Another process leads; a killed one loses the lease by time.
        if row.leader not in (None, self.id) and row.leased_until > now:
            return False
        return await self._take_over(row, now)

    async def _row(self) -> Any:
        async with self.database.read() as connection:
            found = await connection.execute(sa.select(*READER.c).where(READER.c.name == NAME))
            return found.one_or_none()

    async def _begin(self, now: datetime) -> None:
        """Store a reader at the beginning of the log, where no automation exists."""
        assert self.reader  # noqa: S101 it was opened
        cursor = self.reader.encode(await self.reader.beginning())
        columns = {"name": NAME, "cursor": cursor, "clock": EPOCH, "rounds": 0, "leader": None, "leased_until": now}
        async with self.database.write() as transaction:
            connection = transaction.connection
            await connection.execute(insert_or_skip(connection.dialect.name, READER), columns)
            begin = {"number": 0, "created": now, "cursor": cursor, "clock": EPOCH, "is_complete": False}
            await connection.execute(insert_or_skip(connection.dialect.name, table_of(EvaluatedRound)), begin)

    async def _take_over(self, row: Any, now: datetime) -> bool:
        # The number of rounds is the fence: a leader that was only slow writes with the old one, and fails.
        taken = self._guarded(row.rounds).values(leader=self.id, leased_until=now + LEASE, rounds=row.rounds + 1)
        async with self.database.write() as transaction:
            if (await transaction.connection.execute(taken)).rowcount != 1:
                return False
        # Nobody else writes from here on without taking over.
        async with self.database.read() as connection:
            self.state, self.automations = await storage.load(connection, row.clock)
        self.cursor = await self._cursor_of(row.cursor)
        self.index = self._index()
        self.rounds, self.written_at, self.is_loaded = row.rounds + 1, now, True
        self.changed = set()
        return True

    async def _cursor_of(self, text: str) -> Cursor:
        assert self.reader  # noqa: S101 it was opened
        try:
            return self.reader.decode(text)
        except InvalidInput:
            log.exception("the evaluator lost its position in the log")
            return Cursor(await self.reader.position())

    def _guarded(self, rounds: int) -> sa.Update:
        return sa.update(READER).where(READER.c.name == NAME, READER.c.rounds == rounds)

    def _index(self) -> Index:
        return Index(each.compiled for each in self.automations.values() if each.enabled)

    async def _round(self) -> tuple[bool, int]:
        """Evaluate a page; return whether the log goes on, and the number of firings."""
        # Before the page: what is committed later than this time is not expected on it.
        until = await self._time()
        page = await self._page()
        events = await self._events(page)
        await self._recall(events)
        fired = list[Firings]()
        for place, event in enumerate(events, start=1):
            fired += self._step(event)
            if len(fired) >= self.most_firings and place < len(events):
                # A round is one transaction, so the number of its firings is bounded.
                page, events = self._first(page, place), events[:place]
                break
        # Deadlines count only when all events before them are known.
        if page.complete:
            # A transaction that began earlier may still commit events of this time.
            fired += self._fired(until - COMMIT_TIME)
            fired += await self._measure(until)
        await self._write(page, fired, events)
        return not page.complete, len(fired)

    async def _events(self, page: Page[AnyEvent]) -> list[Event]:
        if not any(each.cause for each in page.entries):
            # Most pages have no event that a firing led to, so their chains are not read.
            return [of_row(each) for each in page.entries]
        async with self.database.read() as connection:
            chains = await chains_of(connection, [each.cause for each in page.entries])
        return [of_row(each, chains) for each in page.entries]

    def _fired(self, given: Input) -> list[Firings]:
        """Let triggers step; return the firings with the automations as they are at that place of the log."""
        return [(each, self.automations[each.automation_id]) for each in step(self.index, self.state, given).firings]

    async def _measure(self, now: datetime) -> list[Firings]:
        """Measure the metrics if it is time."""
        leaves = [leaf for each in self.index.automations.values() for leaf in each.metrics]
        at = measuring.instant_of(now)
        if not leaves or at == self.measured_at:
            return []
        async with self.database.read() as connection:
            found = await measuring.measured(connection, leaves, at)
        self.measured_at = at
        return [each for measurement in found for each in self._fired(measurement)]

    async def _time(self) -> datetime:
        async with self.database.read() as connection:
            ((now,),) = await fetch(connection, TIME)
        return now  # type: ignore[no-any-return]

    async def _page(self) -> Page[AnyEvent]:
        assert self.reader  # noqa: S101 it was opened
        try:
            if self.index.automations or self.state.waiting:
                return await self.reader.page(self.cursor)
            # Nothing can fire before the first change, but all that follows must be read.
            return self._first(await self.reader.page(self.cursor, filter=CHANGES_ONLY), 1)
        except CursorExpired:
            log.exception("events were deleted before they were evaluated")
            return Page([], await self.reader.beginning(), complete=False)

    def _first(self, page: Page[AnyEvent], number: int) -> Page[AnyEvent]:
        """Return the first entries of a page."""
        if not page.entries:
            return page
        entries, end = page.entries[:number], page.cursor.upto or page.cursor.seen
        return Page(entries, Cursor(self.cursor.seen, end, entries[-1].seq), complete=False)

    async def _recall(self, events: Sequence[Event]) -> None:
        """Find out which of the events that these follow were evaluated."""
        asked = {each.follows for each in events if each.follows} - {each.id for each in events}
        asked -= self.state.waiting.keys()
        self.state.seen = await self._evaluated(sorted(asked)) if asked else set()

    async def _evaluated(self, ids: Sequence[UUID]) -> set[UUID]:
        assert self.reader  # noqa: S101 it was opened
        table, visibility, cursor = AnyEvent.__table__, self.reader.visibility, self.cursor
        before, values = sa.and_(*visibility.visible("seen")), visibility.values("seen", cursor.seen)
        if cursor.upto:
            within = sa.and_(*visibility.visible("upto"), table.c.seq <= sa.bindparam("after", type_=sa.BigInteger()))
            before = sa.or_(before, within)
            values |= {**visibility.values("upto", cursor.upto), "after": cursor.after}
        asked = sa.select(table.c.id).where(among(table.c.id, ids), before)
        async with self.database.read() as connection:
            return {found for (found,) in await fetch(connection, asked, values)}

    def _step(self, event: Event) -> list[Firings]:
        fired = self._fired(event)
        if event.name in CHANGES:
            self._change(event)
        return fired

    def _change(self, event: Event) -> None:
        """Let a change of an automation take effect."""
        key = UUID(event.resource["resource.id"].rpartition(".")[2])
        before = self.automations.pop(key, None)
        definition = event.payload.get(DEFINITION)
        after = Evaluated.of(key, definition) if definition else None
        if before and after and before.definition["trigger"] == after.definition["trigger"]:
            # The compiled trigger keeps its ids, and so its windows.
            after = Evaluated(after.definition, before.compiled)
        elif before:
            self._remove(before)
            before = None
        if after:
            self.automations[key] = after
            self._switch(after, was_enabled=bool(before and before.enabled))
        self.changed.add(key)
        self.index = self._index()

    def _switch(self, automation: Evaluated, *, was_enabled: bool) -> None:
        if automation.enabled and not was_enabled:
            self.state.add(automation.compiled)
        elif was_enabled and not automation.enabled:
            self.state.disable(automation.compiled)

    def _remove(self, automation: Evaluated) -> None:
        held = {name: getattr(self.state, name) for name in ("windows", "kept")}
        self.state.remove(automation.compiled)
        for name, before in held.items():
            after: Touched[Any, Any] = Touched(getattr(self.state, name))
            after.touched = before.touched
            setattr(self.state, name, after)

    async def _write(self, page: Page[AnyEvent], fired: Sequence[Firings], events: Sequence[Event]) -> None:
        """Write the round in one transaction: all of it, or nothing if another process has taken over."""
        now, state, cursor = self.clock(), self.state, page.cursor
        has_changes = bool(events or fired or self.changed or storage.has_changes(state))
        is_late = self.written_at is None or now - self.written_at > RENEWAL
        # A quiet log writes nothing but a renewal of the lease now and then.
        if not (has_changes or is_late):
            self.cursor = cursor
            return
        assert self.reader  # noqa: S101 it was opened
        place = {"cursor": self.reader.encode(cursor), "clock": state.now}
        values = {**place, "rounds": self.rounds + 1, "leased_until": now + LEASE}
        moved = self._guarded(self.rounds).where(READER.c.leader == self.id).values(**values)
        async with self.database.write() as transaction:
            # First, so that a replaced leader writes nothing else.
            if (await transaction.connection.execute(moved)).rowcount != 1:
                raise Lost
            if has_changes:
                written = {"number": self.rounds + 1, "created": now, "is_complete": page.complete, **place}
                await transaction.connection.execute(sa.insert(EvaluatedRound), written)
            await storage.save(transaction.connection, state, self.automations, self.changed)
            if fired:
                await self._write_firings(transaction, fired, events, now)
        self.cursor, self.rounds, self.written_at, self.changed = cursor, self.rounds + 1, now, set()
        # Only after the commit: if it fails, the state is loaded again.
        storage.forget_changes(state)

    async def _write_firings(
        self, transaction: Transaction, fired: Sequence[Firings], events: Sequence[Event], now: datetime
    ) -> None:
        connection = transaction.connection
        known = await self._events_of(connection, fired, events)
        counted = [(each, automation) for each, automation in fired if not each.is_stopped]
        await bulk.write(connection, [inserted(AutomationFiring, [firing_row(each, now) for each, _ in counted])])
        actions = [row for each, automation in counted for row in action_rows(each, automation, now)]
        await bulk.write(connection, [inserted(AutomationActionRun, actions)])
        told = {
            one.id: one
            for each, automation in fired
            for one in [told_of(each, automation, known.get(_event_id(each)), now)]
        }
        await tell_once(transaction, now, list(told.values()))

    async def _events_of(
        self, connection: AsyncConnection, fired: Sequence[Firings], events: Sequence[Event]
    ) -> dict[UUID, Event]:
        """Return the events of firings: those of the round, and older ones that windows remember."""
        known = {each.id: each for each in events}
        ids = {_event_id(each) for each, _ in fired} - {None, *known}
        if ids:
            table = AnyEvent.__table__
            asked = sa.select(*(table.c[name] for name in COLUMNS)).where(among(table.c.id, sorted(ids)))
            known |= {each.id: each for each in map(of_row, await connection.execute(asked))}
        return known


def _event_id(fired: Fired) -> Any:
    return fired.firing.event.event_id if fired.firing.event else None


TIME: Final = sa.select(DatabaseTime())
