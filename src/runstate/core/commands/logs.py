"""Logs: writing lines in bulk, and deleting them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from asyncpg.pgproto.pgproto import UUID as PG_UUID  # made and written by PostgreSQL's driver several times faster

from runstate.core.commands.command import command
from runstate.core.context import CommandContext
from runstate.database import Transaction
from runstate.database.bulk import append, table_of
from runstate.database.queries.expiry import delete_in_batches
from runstate.documents.logs import LogLine, WriteLogs
from runstate.feed.lines import Lines
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
ENTRY_COLUMNS: Final = ("written", "first_id", "lines", "size", "flow_run_id")
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

    place: int
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


@command(Log, notify=None)
async def write_logs(context: CommandContext, document: WriteLogs) -> WrittenLogs:
    """Write lines in order and in one transaction. Lines that cannot be stored are refused; the others are written."""
    now, ids = context.clock(), Ids()
    # Consecutive ids keep the order of lines with equal times, and an entry needs the first one only.
    first = context.new_id().int & ~(CONSECUTIVE - 1)
    records: list[tuple[Any, ...]] = []
    refused: list[RefusedLine] = []
    for index, line in enumerate(document.logs):
        try:
            records.append(_record(line, PG_UUID((first + len(records)).to_bytes(16)), now, ids))
        except InvalidLine as error:
            refused.append(RefusedLine(index, error.path, str(error)))
    if records:
        await context.database.write_together(partial(_append, context.lines, records, list(_entries(records, now))))
    return WrittenLogs(len(records), refused)


async def _append(
    lines: Lines | None,
    records: Sequence[tuple[Any, ...]],
    entries: Sequence[tuple[Any, ...]],
    transaction: Transaction,
) -> None:
    await append(transaction.connection, Log, COLUMNS, records)
    # The log of writes has one row for many lines, so that following it costs little.
    await append(transaction.connection, LogWrite, ENTRY_COLUMNS, entries)
    if lines:
        transaction.after_commit(partial(_keep, lines, records, entries))
    transaction.notify(LOG_WRITES.channel)


def _keep(lines: Lines, records: Sequence[tuple[Any, ...]], entries: Sequence[tuple[Any, ...]]) -> None:
    """Hand lines to the subscribers of this process, which would read them otherwise."""
    start = 0
    for values in entries:
        entry = LogWrite.of(zip(ENTRY_COLUMNS, values, strict=True))
        end = start + entry.lines
        if lines.is_awaited(entry):
            lines.keep(entry, [Log.of(zip(COLUMNS, record, strict=True)) for record in records[start:end]])
        start = end


class Ids(dict[str | None, UUID | None]):
    """UUIDs by text: most lines of a call name the same runs. Raise ValueError for a malformed one."""

    def __missing__(self, text: str | None) -> UUID | None:
        return self.setdefault(text, None if text is None else UUID(text))


def _record(line: LogLine, id: UUID, now: datetime, ids: Ids) -> tuple[Any, ...]:
    level, logger, message = line.level, line.logger, line.message
    if level not in LEVELS:
        raise InvalidLine("level", f"The level must be from {LEVELS[0]} to {LEVELS[-1]}.")
    if len(logger) > LONGEST_LOGGER:
        raise InvalidLine("logger", f"The name of a logger has at most {LONGEST_LOGGER:,} characters.")
    # Most lines are plain, which two fast checks tell.
    if "\0" in message or not message.isascii():
        message = _storable(message)
    if "\0" in logger or not logger.isascii():
        logger = _storable(logger)
    is_long = len(message) > LONGEST_MESSAGE
    if is_long:
        message = message[:LONGEST_MESSAGE]
    try:
        runs = ids[line.flow_run_id], ids[line.task_run_id], ids[line.worker_id]
    except ValueError:
        raise InvalidLine(_malformed(line), "The value is not a valid UUID.") from None
    return (id, now, logger, level, message, line.timestamp, *runs, is_long)


def _malformed(line: LogLine) -> str:
    names = ("flow_run_id", "task_run_id", "worker_id")
    return next(name for name in names if (text := getattr(line, name)) is not None and not _is_uuid(text))


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _storable(text: str) -> str:
    """Return a text without NUL characters, and with U+FFFD in place of halves of surrogate pairs."""
    text = text.replace("\0", "")
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _entries(records: Sequence[tuple[Any, ...]], now: datetime) -> Iterator[tuple[Any, ...]]:
    """Yield the entries of the log of writes: consecutive lines of one flow run, as many as a page can hold."""
    for flow_run_id, lines in groupby(records, lambda record: record[FLOW_RUN]):
        for first, number, size in _parts(lines):
            yield now, first, number, size, flow_run_id


def _parts(lines: Iterator[tuple[Any, ...]]) -> Iterator[tuple[UUID, int, int]]:
    """Yield the first id, the number and the size of lines that make an entry."""
    first, number, size = None, 0, 0
    for key, _, logger, _, message, *_ in lines:
        if first is not None and (number == MOST_TOGETHER or size > LARGEST_ENTRY):
            yield first, number, size
            first, number, size = None, 0, 0
        first = first or key
        number, size = number + 1, size + len(message) + len(logger) + MEMBERS
    if first is not None:
        yield first, number, size


async def delete_logs(context: CommandContext, clause: sa.ColumnElement[bool]) -> int:
    """Delete the lines that meet a condition, in several transactions, and return their number."""
    return await delete_in_batches(context.database, table_of(Log), clause)
