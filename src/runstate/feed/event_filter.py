"""The filter of subscribers to events: the same condition in memory and in SQL."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from runstate.database.event_conditions import elements, fits_one, label_of
from runstate.database.patterns import compiled, expression
from runstate.documents.events import EventResource
from runstate.rows import Event

Labels = tuple[tuple[str, tuple[str, ...]], ...]
"""Patterns by label, all of which one resource must match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """A condition on events. All members must match; empty ones match everything."""

    names: tuple[str, ...] = ()
    resource: Labels = ()
    related: tuple[Labels, ...] = ()
    keys: None = None

    def match(self, entry: Event) -> bool:
        """Return whether an event matches."""
        return (
            (not self.names or fits_one_of(entry.name, self.names, negatable=False))
            and _has_labels(entry.resource, self.resource)
            and all(any(_has_labels(each, labels) for each in entry.related) for labels in self.related)
        )

    def clauses(self) -> Iterator[sa.ColumnElement[bool]]:
        """Yield the same condition in SQL."""
        table = Event.__table__
        if self.names:
            yield fits_one(table.c.name, self.names, negatable=False)
        yield from labels_of(table.c.resource, self.resource)
        for labels in self.related:
            each = elements(table.c.related)
            yield sa.select(sa.literal(1)).select_from(each).where(*labels_of(each.c.value, labels)).exists()


def labels_of(resource: sa.ColumnElement[object], labels: Labels) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions that a resource has labels."""
    for label, patterns in labels:
        yield fits_one(label_of(resource, label), patterns)


def _has_labels(resource: EventResource, labels: Labels) -> bool:
    return all(
        (value := _label(resource, label)) is not None and fits_one_of(value, patterns) for label, patterns in labels
    )


def _label(resource: EventResource, label: str) -> str | None:
    match label:
        case "resource.id":
            return resource.resource_id
        case "resource.role":
            return resource.role
        case "resource.name":
            return resource.name
        case _:
            return resource.labels.get(label)


def fits_one_of(text: str, patterns: Sequence[str], *, negatable: bool = True) -> bool:
    """Return whether one of the patterns matches a text. A leading `!` negates a pattern if they are negatable."""
    return any(_fits(text, each, negatable=negatable) for each in patterns)


def _fits(text: str, pattern: str, *, negatable: bool) -> bool:
    negated = negatable and pattern.startswith("!")
    found = compiled(expression(pattern[1:] if negated else pattern)).fullmatch(text)
    return (found is None) is negated
