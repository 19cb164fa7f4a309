"""The declaration of an import: a table of the reference, our row class, and where each column comes from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.imports.values import Convert, instant, uuid
from runstate.rows import Row

if TYPE_CHECKING:
    from runstate.imports.importer import Importer

Columns = dict[str, Any]
"""A row of ours, by column."""
Raw = Mapping[str, Any]
"""A row of the reference, by column, as the driver returns it."""


class LeftOut(Exception):
    """A row cannot be imported; the text says why."""


class Homeless(Exception):
    """A row has no place by intention; the text says why."""


class Field(NamedTuple):
    """The source of a column."""

    convert: Convert
    source: str | None = None
    """Column of the reference; one of the same name by default."""
    default: Any = None
    """Value in place of null."""
    refers: type[Row] | None = None
    """Row class whose id the value is; an id that does not exist becomes null."""
    needed: bool = False
    """Whether a row without the reference is left out."""


class Extra(NamedTuple):
    """Further rows that are written with those of a page."""

    row: type[Row]
    rows: Sequence[Columns]


def identity(raw: Raw) -> UUID:
    """Return the id of a row: that of the reference."""
    return uuid(raw["id"])


@dataclass(frozen=True)
class Table:
    """A table of the reference and the row class that its rows become."""

    name: str
    row: type[Row]
    fields: Mapping[str, Field]
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Columns that are the same in all rows."""
    key: tuple[str, ...] = ()
    """Our unique key. A row whose key another row has is not imported, and what refers to it refers to that row."""
    further: tuple[str, ...] = ()
    """Columns that only `finish` and `attach` read."""
    identify: Callable[[Raw], UUID] = identity
    finish: Callable[[Importer, Raw, Columns], None] | None = None
    """Sets columns that need more than one value. Raises LeftOut or Homeless for a row that is not imported."""
    attach: Callable[[Importer, AsyncConnection | None, list[tuple[Raw, Columns]]], Awaitable[list[Extra]]] | None = (
        None
    )
    """Reads what belongs to the new rows of a page, completes these, and returns what is written with them."""
    write: Callable[[Importer, AsyncConnection, list[Columns]], Awaitable[None]] | None = None
    """Writes the rows of a page; by default all of them in one statement."""
    compared: str | None = None
    """Column in which an existing row can differ from the reference."""

    @property
    def columns(self) -> list[str]:
        """Columns of the reference that are read, the id first."""
        sources = [each.source or name for name, each in self.fields.items()]
        compared = [self.compared] if self.compared else []
        return list(dict.fromkeys(["id", "created", "updated", *sources, *compared, *self.further]))

    def converted(self, raw: Raw) -> Columns:
        """Return a row of ours. Raise ValueError if a value does not fit."""
        row: Columns = {"id": self.identify(raw), "created": instant(raw["created"])}
        if "updated" in self.row.__table__.c:
            row["updated"] = instant(raw["updated"])
        for name, each in self.fields.items():
            value = raw[each.source or name]
            found = None if value is None else each.convert(value)
            row[name] = each.default if found is None else found
        return {**row, **self.constants}
