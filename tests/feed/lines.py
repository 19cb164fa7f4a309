"""A second log, declared only in tests: lines of text."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from runstate.database import Database
from runstate.feed import Log
from runstate.rows import LogEntry
from runstate.rows.log import log_table
from tests.feed.factories import NOON


class Line(LogEntry):
    """A line of a program's output."""

    metadata = sa.MetaData(naming_convention=LogEntry.metadata.naming_convention)

    __tablename__ = "line"
    __keys__ = ("run_id",)
    __text__ = "text"

    run_id: Mapped[UUID] = mapped_column(doc="Id of the run that wrote it.")
    number: Mapped[int] = mapped_column(doc="Number of the line in the run: 1, 2, 3 …")
    text: Mapped[str] = mapped_column(doc="Text of the line.")
    occurred: Mapped[datetime] = mapped_column(doc="Time of writing.")

    __table_args__ = log_table(sa.UniqueConstraint("run_id", "number"))


LINES = Log(Line)


class LineFilter:
    """Lines of one run, or lines that contain a text."""

    def __init__(self, run_id: UUID | None = None, text: str = "") -> None:
        self.keys = None if run_id is None else frozenset({run_id})
        self.text = text

    def match(self, entry: Line) -> bool:
        """Return whether a line matches."""
        return (self.keys is None or entry.run_id in self.keys) and self.text in entry.text

    def clauses(self) -> list[sa.ColumnElement[bool]]:
        """Return the condition in SQL."""
        of_run = [] if self.keys is None else [Line.run_id.in_(self.keys)]
        return [*of_run, Line.text.contains(self.text, autoescape=True)]


def line(run_id: UUID | None = None, number: int = 1, text: str = "hello") -> dict[str, Any]:
    """Return the columns of a line."""
    return {"run_id": run_id or uuid4(), "number": number, "text": text, "occurred": NOON}


async def create_lines(database: Database) -> None:
    """Create the table of the log."""
    async with database.write() as transaction:
        await transaction.connection.run_sync(Line.metadata.create_all)


async def write_lines(database: Database, *lines: dict[str, Any]) -> None:
    """Write lines in a transaction, and notify the channel of the log."""
    async with database.write() as transaction:
        await transaction.connection.execute(sa.insert(Line), list(lines))
        transaction.notify(LINES.channel)
