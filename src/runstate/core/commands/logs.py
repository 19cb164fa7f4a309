"""Logs: writing lines in bulk, and deleting them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from runstate.core.commands.command import command
from runstate.core.context import CommandContext
from runstate.database import bulk
from runstate.database.bulk import append, inserted
from runstate.database.queries.expiry import delete_in_batches
from runstate.documents.logs import LogLine, WriteLogs
from runstate.feed.log import LOG_WRITES
from runstate.rows import Log, LogWrite

LONGEST_MESSAGE: Final = 100_000
LONGEST_LOGGER: Final = 1_024
LEVELS: Final = range(-(2**15), 2**15)
COLUMNS: Final = (
    "id",
    "created",
    "logger",
    "level",
    "message",
    "timestamp",
    "flow_run_id",
    "task_run_id",
    "worker_id",
    "truncated",
)
FLOW_RUN: Final = COLUMNS.index("flow_run_id")
CONSECUTIVE: Final = 2**10
"""Ids of the lines of one call: they differ in their last ten bits."""
MOST_TOGETHER: Final = 200
"""Largest number of lines in one entry of the log of writes."""
LARGEST_ENTRY: Final = 2**16
"""Size from which on an entry takes no more lines."""
MEMBERS: Final = 200
"""Characters of a line as JSON, besides its message and its logger."""


class RefusedLine(NamedTuple):
    """A line that was not written."""

    index: int
    """Position in the input, from 0."""
    path: str
    """Member with the mistake."""
    message: str


class WrittenLogs(NamedTuple):
    """The result of writing logs."""

    written: int
    refused: list[RefusedLine]


class InvalidLine(Exception):
    """A line cannot be stored."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


@command(Log, notify=False)
async def write_logs(context: CommandContext, document: WriteLogs) -> WrittenLogs:
    """Write lines in order and in one transaction. Lines that cannot be stored are refused; the others are written."""
    now, ids = context.clock(), Ids()
    first = context.new_id().int & ~(CONSECUTIVE - 1)
    records: list[tuple[Any, ...]] = []
    refused: list[RefusedLine] = []
    for index, line in enumerate(document.logs):
        try:
            records.append(_record(line, UUID(int=first + len(records)), now, ids))
        except InvalidLine as error:
            refused.append(RefusedLine(index, error.path, str(error)))
    if records:
        async with context.database.write() as transaction:
            await append(transaction.connection, Log, COLUMNS, records)
            await bulk.write(transaction.connection, [inserted(LogWrite, _entries(records, now))])
            transaction.notify(LOG_WRITES.channel)
    return WrittenLogs(len(records), refused)


class Ids(dict[str | None, UUID | None]):
    """UUIDs by text: most lines of a call name the same runs. Raise ValueError for a malformed one."""

    def __missing__(self, text: str | None) -> UUID | None:
        return self.setdefault(text, None if text is None else UUID(text))


def _record(line: LogLine, id: UUID, now: datetime, ids: Ids) -> tuple[Any, ...]:
    if line.level not in LEVELS:
        raise InvalidLine("level", f"The level must be from {LEVELS[0]} to {LEVELS[-1]}.")
    if len(line.logger) > LONGEST_LOGGER:
        raise InvalidLine("logger", f"The name of a logger has at most {LONGEST_LOGGER:,} characters.")
    message = _storable(line.message)
    return (
        id,
        now,
        _storable(line.logger),
        line.level,
        message[:LONGEST_MESSAGE],
        line.timestamp,
        _id(ids, line, "flow_run_id"),
        _id(ids, line, "task_run_id"),
        _id(ids, line, "worker_id"),
        len(message) > LONGEST_MESSAGE,
    )


def _id(ids: Ids, line: LogLine, name: str) -> UUID | None:
    try:
        return ids[getattr(line, name)]
    except ValueError:
        raise InvalidLine(name, "The value is not a valid UUID.") from None


def _storable(text: str) -> str:
    """Return a text without NUL characters, and with U+FFFD in place of halves of surrogate pairs."""
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "") if "\0" in text else text


def _entries(records: Sequence[tuple[Any, ...]], now: datetime) -> Iterator[dict[str, Any]]:
    """Yield the entries of the log of writes: consecutive lines of one flow run, as many as a page can hold."""
    for flow_run_id, lines in groupby(records, lambda record: record[FLOW_RUN]):
        for first, number, size in _parts(lines):
            yield {"written": now, "first_id": first, "lines": number, "size": size, "flow_run_id": flow_run_id}


def _parts(lines: Iterator[tuple[Any, ...]]) -> Iterator[tuple[UUID, int, int]]:
    """Yield the first id, the number and the size of lines that make an entry."""
    first, number, size = None, 0, 0
    for id, _, logger, _, message, *_ in lines:
        if first is not None and (number == MOST_TOGETHER or size > LARGEST_ENTRY):
            yield first, number, size
            first, number, size = None, 0, 0
        first = first or id
        number, size = number + 1, size + len(message) + len(logger) + MEMBERS
    if first is not None:
        yield first, number, size


async def delete_logs(context: CommandContext, clause: sa.ColumnElement[bool]) -> int:
    """Delete the lines that meet a condition, in several transactions, and return their number."""
    return await delete_in_batches(context.database, bulk.table_of(Log), clause)
