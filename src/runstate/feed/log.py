"""Log tables, and the filters of their subscribers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar, cast
from uuid import UUID

import sqlalchemy as sa

from runstate.database.bulk import table_of
from runstate.rows import Event, LogEntry, LogWrite, StoredEvent, Transition, row_classes

T = TypeVar("T", bound=LogEntry | Event)
Entry_contra = TypeVar("Entry_contra", contravariant=True)

INTERNAL_COLUMNS: Final = frozenset({"xid", "boot"})
"""Columns that decide the visibility of an entry and are not part of it."""


class Log(Generic[T]):
    """A log table. Readers, hubs, cursors and retention work with any log.

    Several tables can be one log: their rows share one sequence, and the cursors of each are good for all.
    """

    def __init__(self, row: type[T], *parts: type[LogEntry]) -> None:
        self.row = row
        self.table = table_of(row)
        """The table, or a view of several parts of the log."""
        self.parts = [table_of(part) for part in parts] or [self.table]
        """All tables of the log; the first one names it."""
        self.name = self.parts[0].name
        """Name of the log in cursors and checkpoints."""
        self.channel = f"runstate_{self.name}"
        """Channel of the notifications about commits to the log."""
        self.columns = [column for column in self.table.columns if column.name not in INTERNAL_COLUMNS]
        self.column_names = [column.name for column in self.columns]
        self.seq_index = self.column_names.index("seq")

    def entry(self, values: Sequence[Any]) -> T:
        """Return the entry with these values of `columns`."""
        return cast("T", self.row.of(dict(zip(self.column_names, values, strict=True))))

    def keys(self, entry: T) -> set[UUID | None]:
        """Return the ids by which subscribers can select the entry."""
        return {getattr(entry, name) for name in getattr(self.row, "__keys__", ())}

    def length(self, entry: T) -> int:
        """Return the length of the entry's long text in characters."""
        text = getattr(self.row, "__text__", None)
        return len(getattr(entry, text) or "") if text else 0


class EventLog(Log[Event]):
    """The log of events: stored ones, and those of transitions."""

    def length(self, entry: Event) -> int:
        """Return the approximate length of an event as JSON."""
        return len(repr(entry.payload)) if len(entry.payload) else 0


class LogFilter(Protocol[Entry_contra]):
    """A condition that selects the entries for a subscriber, in memory and in SQL."""

    @property
    def keys(self) -> frozenset[UUID] | None:
        """Ids: each matching entry has at least one of them. None if there is no such restriction."""

    def match(self, entry: Entry_contra) -> bool:
        """Return whether an entry matches."""

    def clauses(self) -> Iterable[sa.ColumnElement[bool]]:
        """Return SQL conditions that all hold for exactly the matching entries."""


@dataclass(frozen=True, slots=True)
class Everything:
    """The filter that matches every entry of any log."""

    keys: frozenset[UUID] | None = None

    def match(self, entry: object) -> bool:
        """Return True."""
        return True

    def clauses(self) -> Iterable[sa.ColumnElement[bool]]:
        """Return no condition."""
        return ()


EVERYTHING: Final = Everything()

TRANSITIONS: Final = Log(Transition, Transition, StoredEvent)
"""The log of transitions: those entries of the log of events that are transitions."""
EVENTS: Final = EventLog(Event, Transition, StoredEvent)
"""The log of events: stored ones, and those of transitions."""
LOG_WRITES: Final = Log(LogWrite)
"""The log of writes to the logs of runs."""


def all_logs() -> list[Log[Any]]:
    """Return every log of the schema."""
    rows = [row for row in row_classes() if issubclass(row, LogEntry)]
    return [TRANSITIONS if row is Transition else Log(row) for row in rows]
