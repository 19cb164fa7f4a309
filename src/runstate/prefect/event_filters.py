"""The client's filter of events: the same condition in memory, for subscribers, and in SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from runstate.database import text_search
from runstate.database.dialects import among
from runstate.database.event_conditions import (
    JsonTexts,
    elements,
    fits_one,
    is_of,
    is_related_to,
    label_of,
)
from runstate.database.texts import starts_with
from runstate.documents.base import Text
from runstate.feed.event_filter import fits_one_of
from runstate.prefect.bodies import Time
from runstate.prefect.events import ID, NAME, ROLE
from runstate.prefect.filters import MOST_BEGINNINGS
from runstate.prefect.vocabulary import THEIRS, beginnings, both, labels, to_client, to_server
from runstate.rows import Event

Clause = sa.ColumnElement[bool]
Column = sa.ColumnElement[Any]
Labels = dict[str, str]

MOST: Final = 500
"""Largest number of names or ids of one member."""
OWN: Final = {ID: "resource.id", NAME: "resource.name", ROLE: "resource.role"}
"""Labels of the client that have a field of their own."""


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | dict) else value


Texts = Annotated[list[Text], Field(max_length=MOST)]
Beginnings = Annotated[list[Text], Field(max_length=MOST_BEGINNINGS)]
Patterns = Annotated[dict[str, Annotated[Beginnings, BeforeValidator(_listed)]], Field(max_length=20)]


class Part(BaseModel):
    """A part of a filter. Members that are null hold no condition."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Occurred(Part):
    """The time of events."""

    since: Time | None = None
    until: Time | None = None

    def match(self, time: datetime) -> bool:
        """Return whether a time is in the range."""
        return (self.since is None or self.since <= time) and (self.until is None or time <= self.until)

    def clauses(self, column: Column) -> Iterator[Clause]:
        """Yield the same condition in SQL."""
        if self.since is not None:
            yield column >= sa.literal(self.since, column.type)
        if self.until is not None:
            yield column <= sa.literal(self.until, column.type)


class Names(Part):
    """The names of events."""

    prefix: Beginnings | None = None
    exclude_prefix: Beginnings | None = None
    name: Texts | None = None
    exclude_name: Texts | None = None

    def match(self, name: str) -> bool:
        """Return whether a name of the client meets the condition."""
        return (
            (not self.prefix or name.startswith(tuple(self.prefix)))
            and not name.startswith(tuple(self.exclude_prefix or ()))
            and (not self.name or name in self.name)
            and name not in (self.exclude_name or ())
        )

    def clauses(self, column: Column) -> Iterator[Clause]:
        """Yield the same condition in SQL."""
        if self.prefix:
            yield _begins(column, self.prefix)
        if self.exclude_prefix:
            yield sa.not_(_begins(column, self.exclude_prefix))
        if self.name:
            yield among(column, both(self.name))
        if self.exclude_name:
            yield sa.not_(among(column, both(self.exclude_name)))


class Resource(Part):
    """The labels of one resource."""

    id: Texts | None = None
    id_prefix: Beginnings | None = None
    role: Texts | None = None
    resources_in_roles: Annotated[list[tuple[Text, Text]], Field(max_length=MOST_BEGINNINGS)] | None = None
    labels: Patterns | None = None

    def match(self, found: Labels) -> bool:
        """Return whether labels of the client meet the condition."""
        known = found.get(ID, "")
        return (
            (not self.id or known in self.id)
            and (not self.id_prefix or known.startswith(tuple(self.id_prefix)))
            and (not self.role or found.get(ROLE) in self.role)
            and (not self.resources_in_roles or (known, found.get(ROLE)) in self.resources_in_roles)
            and all(_fits(found.get(label), values) for label, values in (self.labels or {}).items())
        )

    def clauses(self, resource: Column) -> Iterator[Clause]:
        """Yield the same condition on a resource as JSON."""
        known, role = label_of(resource, OWN[ID]), label_of(resource, OWN[ROLE])
        if self.id:
            yield among(known, both(self.id))
        if self.id_prefix:
            yield _begins(known, self.id_prefix)
        if self.role:
            yield among(role, self.role)
        if self.resources_in_roles:
            pairs = (sa.and_(among(known, both([each])), role == part) for each, part in self.resources_in_roles)
            yield sa.or_(*pairs)
        for label, values in (self.labels or {}).items():
            yield _fitting(resource, label, values)

    @property
    def is_empty(self) -> bool:
        """Whether it holds no condition."""
        return not any((self.id, self.id_prefix, self.role, self.resources_in_roles, self.labels))

    @property
    def ids(self) -> list[str] | None:
        """Ids of which the resource has one, as the server may know them; None if it can have others."""
        named = self.id or [each for each, _ in self.resources_in_roles or ()]
        return both(named) if named else None


def _begins(column: Column, texts: Sequence[str]) -> Clause:
    return sa.or_(*(starts_with(column, each) for each in beginnings(texts)))


def _fits(value: str | None, patterns: Sequence[str]) -> bool:
    return value is not None and fits_one_of(value, patterns)


def _fitting(resource: Column, label: str, patterns: Sequence[str]) -> Clause:
    """Return the condition that a label of the client fits one of the patterns."""
    if label in OWN:
        value = label_of(resource, OWN[label])
    elif label.startswith(THEIRS):
        value = sa.func.coalesce(label_of(resource, label), label_of(resource, to_server(label)))
    else:
        value = label_of(resource, label)
    if label != ID:
        return fits_one(value, patterns)
    return sa.or_(sa.false(), *(_fitting_id(value, each) for each in patterns))


def _fitting_id(value: Column, pattern: str) -> Clause:
    """Return the condition that an id fits a pattern of the client: one of the client or of the server."""
    if not pattern.startswith("!"):
        return fits_one(value, both([pattern]))
    return sa.and_(*(fits_one(value, [f"!{each}"]) for each in both([pattern[1:]])))


Several = Annotated[list[Resource], Field(max_length=20), BeforeValidator(_listed)]


class Ids(Part):
    """The ids of events; an empty list stands for all."""

    id: Annotated[list[UUID], Field(max_length=MOST)] | None = None


class Search(Part):
    """A full-text search."""

    query: Annotated[Text, Field(max_length=200)]


class EventFilter(Part):
    """A condition on events. All members must hold."""

    occurred: Occurred = Occurred()
    event: Names | None = None
    resource: Resource | None = None
    related: Several | None = None
    any_resource: Several | None = None
    id: Ids | None = None
    text: Search | None = None
    order: Literal["ASC", "DESC"] = "DESC"

    def __hash__(self) -> int:
        # Subscribers with equal filters share their work; lists have no hash.
        return hash(self.model_dump_json())

    @property
    def keys(self) -> None:
        """Subscribers get events of any run."""
        return

    def match(self, entry: Event) -> bool:
        """Return whether an event meets the condition. The search is for pages only."""
        own, others = labels(entry.resource), [labels(each) for each in entry.related]
        return (
            self.occurred.match(entry.occurred)
            and (self.event is None or self.event.match(to_client(entry.name)))
            and (self.resource is None or self.resource.match(own))
            and all(any(map(each.match, others)) for each in self.related or () if not each.is_empty)
            and all(any(map(each.match, [own, *others])) for each in self.any_resource or ())
            and (self.id is None or not self.id.id or entry.id in self.id.id)
        )

    def clauses(self) -> Iterator[Clause]:
        """Yield the same condition in SQL."""
        table = Event.__table__
        yield from self.occurred.clauses(table.c.occurred)
        if self.event is not None:
            yield from self.event.clauses(table.c.name)
        if self.resource is not None:
            yield _own(table, self.resource)
        yield from (_others(table, each) for each in self.related or () if not each.is_empty)
        yield from (sa.or_(_own(table, each), _others(table, each)) for each in self.any_resource or ())
        if self.id is not None and self.id.id:
            yield among(table.c.id, self.id.id)
        if self.text is not None:
            texts = [table.c.name, JsonTexts(table.c.resource), JsonTexts(table.c.related)]
            columns = [*texts, sa.cast(table.c.payload, sa.Text)]
            yield text_search.matches(columns, text_search.parse(self.text.query))


def _own(table: sa.FromClause, resource: Resource) -> Clause:
    indexed = [] if resource.ids is None else [is_of(table, resource.ids)]
    return sa.and_(sa.true(), *indexed, *resource.clauses(table.c.resource))


def _others(table: sa.FromClause, resource: Resource) -> Clause:
    indexed = [] if resource.ids is None else [is_related_to(table, resource.ids)]
    each = elements(table.c.related)
    found = sa.select(sa.literal(1)).select_from(each).where(sa.true(), *resource.clauses(each.c.value))
    return sa.and_(sa.true(), *indexed, found.correlate(table).exists())
