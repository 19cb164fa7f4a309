"""Conditions on events and on the labels of their resources."""

from collections.abc import Iterator
from typing import Annotated, Any, Final

import sqlalchemy as sa
from pydantic import Field

from runstate.database import text_search
from runstate.database.event_conditions import JsonTexts, elements, fits_one, is_of, is_related_to, json_text
from runstate.documents.base import Document, Text
from runstate.documents.labels import LabelPattern, LabelPatterns, RelatedPatterns
from runstate.errors import BadUserInput, InvalidInput
from runstate.feed.event_filter import EventFilter, Labels, labels_of
from runstate.graphql.published import Event
from runstate.graphql.types.comparisons import TextComparison
from runstate.graphql.types.conditions import Clause, Column, Conditions, is_set, member
from runstate.graphql.types.fields import input_type
from runstate.graphql.types.filters import LONGEST_SEARCH, SEARCH, Extra, has_conditions
from runstate.graphql.types.inputs import Input

MOST_PATTERNS: Final = 100
FIELDS: Final = {"name": "name", "resource_id": "resource_id", "role": "role"}


@input_type()
class EventResourceWhere(Conditions):
    """Conditions on one resource of an event. All must hold, for the same resource; null is rejected."""

    may_be_empty = True

    labels: list[Input[LabelPattern]] | None = member("All of these patterns match.")
    name: TextComparison | None = member("Name for people.")
    resource_id: TextComparison | None = member("Name of the resource.")
    role: TextComparison | None = member("Role of the resource.")

    def clauses(self, resource: Column) -> Iterator[Clause]:
        """Yield the conditions on a resource as JSON."""
        for name in FIELDS:
            if is_set(comparison := getattr(self, name)):
                yield from comparison.clauses(field_of(resource, name))
        if is_set(self.labels):
            yield from labels_of(resource, patterns(self.labels))

    @property
    def ids(self) -> list[str] | None:
        """Ids of which the resource has one; None if it can have others."""
        if not is_set(self.resource_id):
            return None
        wanted: Any = self.resource_id
        return [wanted.eq] if is_set(wanted.eq) else list(wanted.in_) if is_set(wanted.in_) else None


@input_type()
class EventResourceListWhere(Conditions):
    """Conditions on the related resources of an event. All must hold; null is rejected."""

    none: EventResourceWhere | None = member("None of them meets this condition.")
    some: EventResourceWhere | None = member("At least one of them meets this condition.")


def field_of(resource: Column, name: str) -> Column:
    """Return a field of a resource as text."""
    return json_text(resource, [name])


def patterns(given: Any) -> Labels:
    """Return patterns of labels as a client sent them."""
    checked = [each.checked() for each in given]
    return tuple((each.label, tuple(each.values)) for each in checked)


def _has_resource(table: sa.FromClause, where: EventResourceWhere) -> Clause:
    indexed = [] if where.ids is None else [is_of(table, _storable(where.ids))]
    return sa.and_(sa.true(), *indexed, *where.clauses(table.c.resource))


def _has_related(table: sa.FromClause, where: EventResourceWhere) -> Clause:
    indexed = [] if where.ids is None else [is_related_to(table, _storable(where.ids))]
    each = elements(table.c.related)
    found = sa.select(sa.literal(1)).select_from(each).where(sa.true(), *where.clauses(each.c.value))
    return sa.and_(sa.true(), *indexed, found.correlate(table).exists())


def _storable(ids: list[str]) -> list[str]:
    # PostgreSQL rejects parameters with NUL, and no stored text has one.
    return [each for each in ids if "\0" not in each]


def _related(table: sa.FromClause, where: EventResourceListWhere) -> Clause:
    parts = [_has_related(table, where.some)] if is_set(where.some) and where.some else []
    if is_set(where.none) and where.none:
        parts.append(sa.not_(_has_related(table, where.none)))
    return sa.and_(sa.true(), *parts)


def _any_resource(table: sa.FromClause, where: EventResourceWhere) -> Clause:
    return sa.or_(_has_resource(table, where), _has_related(table, where))


def _name_matches(table: sa.FromClause, names: list[str]) -> Clause:
    return fits_one(table.c.name, checked_names(names), negatable=False)


def checked_names(names: list[str]) -> tuple[str, ...]:
    """Return patterns of names. Raise BadUserInput if there are too many, or one is negated."""
    if len(names) > MOST_PATTERNS:
        raise BadUserInput(f"At most {MOST_PATTERNS} patterns are possible.")
    if any(each.startswith("!") for each in names):
        raise BadUserInput("A pattern of names does not begin with `!`. Use `not`.")
    return tuple(_storable(names))


def _text(table: sa.FromClause, text: str) -> Clause:
    if len(text) > LONGEST_SEARCH:
        raise InvalidInput(f"A search has at most {LONGEST_SEARCH} characters.", ("where", "text"))
    columns = [table.c.name, JsonTexts(table.c.resource), JsonTexts(table.c.related), sa.cast(table.c.payload, sa.Text)]
    return text_search.matches(columns, text_search.parse(text))


has_conditions(
    Event,
    any_resource=Extra(
        EventResourceWhere, "Its resource, or one of its related resources, meets this condition.", _any_resource
    ),
    name_matches=Extra(list[str], "Its name matches one of these patterns, as in triggers.", _name_matches),
    related=Extra(EventResourceListWhere, "Conditions on its related resources.", _related),
    resource=Extra(EventResourceWhere, "The thing that it happened to.", _has_resource),
    text=Extra(str, SEARCH.format("name, values of labels, and payload"), _text),
)


class EventMatch(Document):
    """Conditions that can be decided by the event alone. All must hold."""

    names: Annotated[list[Text], Field(max_length=MOST_PATTERNS)] | None = Field(
        default=None, description="Its name matches one of these patterns; an empty list matches any."
    )
    related: RelatedPatterns | None = Field(
        default=None, description="For each of these, one of its related resources has all the labels."
    )
    resource: LabelPatterns | None = Field(default=None, description="The thing that it happened to has these labels.")

    def filter(self) -> EventFilter:
        """Return the conditions as a filter of the feed."""
        return EventFilter(
            names=checked_names(self.names or []),
            resource=_labels(self.resource or []),
            related=tuple(_labels(each) for each in self.related or []),
        )


def _labels(given: list[LabelPattern]) -> Labels:
    return tuple((each.label, tuple(each.values)) for each in given)
