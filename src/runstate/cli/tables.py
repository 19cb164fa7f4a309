"""Output of commands: tables on a terminal, lines of JSON in a pipe."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runstate.client.records import Record
from runstate.documents.states import StateType

COLORS: Final = {
    StateType.SCHEDULED: "yellow",
    StateType.PENDING: "yellow",
    StateType.RUNNING: "blue",
    StateType.COMPLETED: "green",
    StateType.FAILED: "red",
    StateType.CRASHED: "red",
    StateType.CANCELLED: "magenta",
    StateType.CANCELLING: "magenta",
    StateType.PAUSED: "cyan",
}


def show(rows: Iterable[Record], columns: Mapping[str, str]) -> None:
    """Print rows: the columns, names of members by their titles, as a table; all members as JSON."""
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo(orjson.dumps(row.model_dump(mode="json", by_alias=True)).decode())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        # An id is of use only as a whole.
        table.add_column(title, no_wrap=title == "id", min_width=36 if title == "id" else None)
    for row in rows:
        table.add_row(*(cell(row, name) for name in columns.values()))
    Console(highlight=False).print(table)


def cell(row: Record, name: str) -> Text:
    """Return a member of a row for a table."""
    value: Any = row
    for part in name.split("."):
        value = getattr(value, part)
    style = COLORS.get(getattr(row, "state_type", None) or StateType.PENDING, "") if name == "state_name" else ""
    return Text(words(value), style=style)


def words(value: Any) -> str:
    """Return a value in words."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)
