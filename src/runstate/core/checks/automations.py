"""Verifies firings and windows of automations: the recorded rounds of the evaluator are repeated over the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from runstate.core.automations.events import Event
from runstate.core.automations.windows import LATENESS
from runstate.core.checks.verify import finding_of
from runstate.core.evaluation import storage
from runstate.core.evaluation.evaluator import CHANGES_ONLY, COMMIT_TIME, PAGE_SIZE, Evaluator, Firings
from runstate.database import Database
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.database.queries import verify as sql
from runstate.errors import CursorExpired
from runstate.feed import EVENTS, Reader
from runstate.feed.cursor import Cursor
from runstate.feed.log import EVERYTHING
from runstate.feed.reader import Page
from runstate.rows import Automation, AutomationBucket, AutomationFiring, EvaluatedRound
from runstate.rows import Event as AnyEvent
from runstate.rows.base import EPOCH

ROUNDS_READ: Final = 200
"""Rounds that are read together with their firings."""
MISSING: Final = "Firings that are missing"
SUPERFLUOUS: Final = "Firings that the log does not explain"
WINDOWS: Final = "Windows that differ from the log"
OF_NO_ROUND: Final = "Firings of no round"


class Replay(Evaluator):
    """An evaluator that repeats recorded rounds, and writes nothing."""

    def __init__(self, database: Database, reader: Reader[AnyEvent], start: Cursor) -> None:
        super().__init__(database, lambda: EPOCH)
        self.reader, self.cursor, self.most_firings = reader, start, 1_000_000_000
        self.round: Any = None
        self.first = EPOCH
        """Time of the round before the first that is repeated."""
        self.fired: Sequence[Firings] = ()
        self.began: datetime | None = None
        """Arrival of the first event, if the log does not begin there."""
        self.known = set[UUID]()
        """Automations whose whole life was read."""
        self.forget()

    def forget(self, began: datetime | None = None) -> None:
        """Begin anew without automations: those of before are not verified."""
        self.state, self.automations, self.known = storage.new_state(EPOCH), {}, set()
        self.index, self.began = self._index(), began

    async def play(self, recorded: Any) -> set[tuple[UUID, UUID]]:
        """Repeat a round; return the ids of firings that count, with their automations."""
        self.round = recorded
        await self._round()
        counted = [each for each, _ in self.fired if not each.is_stopped]
        return {(each.id, each.automation_id) for each in counted if each.automation_id in self.known}

    @override
    async def _time(self) -> datetime:
        clock: datetime = self.round.clock
        return clock + COMMIT_TIME

    @override
    async def _page(self) -> Page[AnyEvent]:
        assert self.reader  # noqa: S101 it was given
        end = self.reader.decode(self.round.cursor)
        reads_all = bool(self.index.automations or self.state.waiting)
        entries, cursor, complete = list[AnyEvent](), self.cursor, False
        while not complete:
            page = await self.reader.page(cursor, end.upto or end.seen, EVERYTHING if reads_all else CHANGES_ONLY)
            entries += page.entries
            is_enough = bool(end.upto and entries and entries[-1].seq >= end.after)
            cursor, complete = page.cursor, page.complete or is_enough
        if end.upto:
            entries = [each for each in entries if each.seq <= end.after]
        return Page(entries, end, self.round.is_complete)

    @override
    async def _measure(self, now: datetime) -> list[Firings]:
        return []

    @override
    def _change(self, event: Event) -> None:
        super()._change(event)
        key = UUID(event.resource["resource.id"].rpartition(".")[2])
        is_whole = self.began is None or event.received > self.began + LATENESS
        if event.name.endswith(".created") and is_whole:
            self.known.add(key)
        if (automation := self.automations.get(key)) and automation.compiled.metrics:
            # The values of metrics are not in the log.
            self.known.discard(key)

    @override
    async def _write(self, page: Page[AnyEvent], fired: Sequence[Firings], events: Sequence[Event]) -> None:
        self.cursor, self.fired, self.changed = page.cursor, fired, set()
        storage.forget_changes(self.state)


class Comparison:
    """A comparison in progress. Rounds of one instant share their firings."""

    def __init__(self, replay: Replay, kept_since: datetime) -> None:
        self.replay, self.kept_since = replay, kept_since
        self.at = EPOCH
        self.stored: dict[UUID, UUID] = {}
        """Automations of the stored firings of the instant that no round has explained yet, by id of the firing."""
        self.missing, self.superfluous = list[str](), list[str]()

    async def play(self, recorded: Any, stored: dict[UUID, UUID]) -> None:
        """Repeat a round and compare its firings."""
        if recorded.created != self.at:
            self.end()
            self.at, self.stored = recorded.created, stored
        assert self.replay.reader  # noqa: S101 it was given
        try:
            expected = await self.replay.play(recorded)
        except CursorExpired:
            # Retention has deleted the entries of the round.
            self.replay.cursor = self.replay.reader.decode(recorded.cursor)
            self.replay.forget(recorded.clock)
            self.stored = {}
            return
        if recorded.created > self.kept_since:
            self.missing += [str(key) for key, _ in expected if key not in self.stored]
        for key, _ in expected:
            self.stored.pop(key, None)

    def end(self) -> None:
        """End the comparison of an instant."""
        self.superfluous += [str(key) for key, automation in self.stored.items() if automation in self.replay.known]
        self.stored = {}


async def verify_automations(database: Database, kept_since: datetime) -> list[str]:
    """Return a line for each kind of difference between firings and windows and those that the log leads to.

    Memory is bounded by the windows that are open. Firings from before `kept_since` may have been deleted. Automations
    that are older than the log or its rounds are not compared, nor are those with metrics.
    """
    reader = await Reader.open(database, EVENTS, page_size=PAGE_SIZE)
    found = {OF_NO_ROUND: list[str]()}
    async with sql.snapshot(database) as connection:
        comparison: Comparison | None = None
        async for rounds, stored in _rounds(connection):
            for each in rounds:
                # The first row is the place from which the others are repeated.
                if comparison is None:
                    comparison = Comparison(_replay(database, reader, each), kept_since)
                else:
                    await comparison.play(each, stored.get(each.created, {}))
        if comparison:
            comparison.end()
            found |= {MISSING: comparison.missing, SUPERFLUOUS: comparison.superfluous}
            found |= {WINDOWS: await _windows(connection, comparison.replay)}
            found |= {OF_NO_ROUND: await _of_no_round(connection, comparison.replay.first)}
    return [finding_of(name, len(ids), sorted(ids)) for name, ids in found.items() if ids]


def _replay(database: Database, reader: Reader[AnyEvent], first: Any) -> Replay:
    replay = Replay(database, reader, reader.decode(first.cursor))
    replay.first = first.created
    replay.forget(None if first.number == 0 else first.clock)
    return replay


async def _rounds(
    connection: AsyncConnection,
) -> AsyncIterator[tuple[Sequence[Any], dict[datetime, dict[UUID, UUID]]]]:
    """Yield rounds in order, with the automations of their firings, by time and id."""
    table, after = table_of(EvaluatedRound), -1
    asked = sa.select(*table.c).order_by(table.c.number).limit(ROUNDS_READ)
    while rounds := (await connection.execute(asked.where(table.c.number > after))).all():
        yield rounds, await _stored(connection, sorted({each.created for each in rounds}))
        after = rounds[-1].number


async def _stored(connection: AsyncConnection, times: Sequence[datetime]) -> dict[datetime, dict[UUID, UUID]]:
    table = table_of(AutomationFiring)
    asked = sa.select(table.c.created, table.c.id, table.c.automation_id).where(table.c.created.in_(times))
    found: dict[datetime, dict[UUID, UUID]] = {}
    for created, key, automation in await connection.execute(asked):
        found.setdefault(created, {})[key] = automation
    return found


async def _windows(connection: AsyncConnection, replay: Replay) -> list[str]:
    """Return the ids of triggers whose windows differ."""
    changed = sa.select(Automation.id).where(Automation.updated <= replay.state.now)
    # A change that was not evaluated yet has deleted windows already.
    settled = set((await connection.execute(changed)).scalars()) & replay.known & replay.automations.keys()
    triggers = {node.id for key in settled for node in replay.automations[key].compiled.nodes}
    expected = {
        (trigger, storage.digest(key)): (each.start, each.end, each.count, each.last.event_id if each.last else None)
        for (trigger, key), each in replay.state.windows.items()
        if trigger in triggers
    }
    table = table_of(AutomationBucket)
    for row in await connection.execute(sa.select(*table.c).where(among(table.c.automation_id, sorted(settled)))):
        its = row._mapping  # noqa: SLF001 the columns by name
        window = (row.start, row.end, its["count"], row.last_event_id)
        if expected.get((row.trigger_id, row.digest)) == window:
            del expected[row.trigger_id, row.digest]
        else:
            expected[row.trigger_id, row.digest] = window
    return sorted({str(trigger) for trigger, _ in expected})


async def _of_no_round(connection: AsyncConnection, since: datetime) -> list[str]:
    """Return the ids of firings that were not written with a round."""
    there = sa.exists().where(EvaluatedRound.created == AutomationFiring.created)
    asked = sa.select(AutomationFiring.id).where(AutomationFiring.created > since, ~there)
    return [str(key) for key in (await connection.execute(asked)).scalars()]
