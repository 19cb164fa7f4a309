"""Lines that this process has written are handed to its subscribers."""

from typing import Any

import pytest
from uuid_utils.compat import uuid7

from runstate.database import Database
from runstate.feed.lines import Lines
from runstate.rows import Log, LogWrite


def written(size: int = 1) -> tuple[LogWrite, list[Log]]:
    """Return an entry of the log of writes, and its line."""
    key = uuid7()
    common: dict[str, Any] = {"flow_run_id": None}
    return LogWrite.of(common | {"first_id": key, "lines": 1, "size": size}), [Log.of(common | {"id": key})]


@pytest.fixture
def lines(database: Database) -> Lines:
    return Lines(database, capacity=10)


async def test_kept_lines_are_not_read(lines: Lines) -> None:
    entry, kept = written()
    lines.keep(entry, kept)
    before = lines.database.statements

    assert await lines.of([entry]) == kept
    assert lines.database.statements == before


async def test_the_oldest_kept_lines_are_read_again_if_there_are_too_many(lines: Lines) -> None:
    old, new = written(6), written(6)
    lines.keep(*old)
    lines.keep(*new)

    # The table does not have them.
    assert await lines.of([old[0], new[0]]) == new[1]
