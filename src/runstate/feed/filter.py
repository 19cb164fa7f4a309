"""The filter of subscribers to transitions: the same condition in memory and in SQL."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa

from runstate.database.dialects import among, has_all_tags, has_any_tag
from runstate.documents.states import RunKind, StateType
from runstate.rows import Transition


@dataclass(frozen=True, slots=True, kw_only=True)
class TagFilter:
    """A condition on the tags that the run had when it entered the state."""

    all: frozenset[str] = frozenset()
    any: frozenset[str] | None = None
    none: frozenset[str] = frozenset()
    empty: bool | None = None

    def match(self, tags: list[str]) -> bool:
        """Return whether these tags match."""
        return (
            self.all.issubset(tags)
            and (self.any is None or not self.any.isdisjoint(tags))
            and self.none.isdisjoint(tags)
            and self.empty in (None, not tags)
        )

    def clauses(self) -> Iterator[sa.ColumnElement[bool]]:
        """Yield the same condition in SQL. Tags with a NUL, which PostgreSQL rejects, match no stored tag."""
        if any("\0" in tag for tag in self.all):
            yield sa.false()
        elif self.all:
            yield has_all_tags(Transition.tags, self.all)
        if self.any is not None:
            yield has_any_tag(Transition.tags, _storable(self.any))
        if self.none:
            yield sa.not_(has_any_tag(Transition.tags, _storable(self.none)))
        if self.empty is not None:
            yield (Transition.tags == []) if self.empty else (Transition.tags != [])


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionFilter:
    """A condition on transitions. All members that are not None must match; an empty set matches nothing."""

    run_kind: RunKind | None = None
    run_ids: frozenset[UUID] | None = None
    flow_run_ids: frozenset[UUID] | None = None
    flow_ids: frozenset[UUID] | None = None
    deployment_ids: frozenset[UUID] | None = None
    state_types: frozenset[StateType] | None = None
    state_names: frozenset[str] | None = None
    tags: TagFilter | None = None

    @property
    def keys(self) -> frozenset[UUID] | None:
        """Ids of runs or flow runs: each matching transition has one of them. None if there is no such restriction."""
        return self.flow_run_ids if self.run_ids is None else self.run_ids

    def match(self, entry: Transition) -> bool:
        """Return whether the transition matches."""
        return (
            (self.run_kind is None or entry.run_kind is self.run_kind)
            and (self.run_ids is None or entry.run_id in self.run_ids)
            and (self.flow_run_ids is None or entry.flow_run_id in self.flow_run_ids)
            and (self.flow_ids is None or entry.flow_id in self.flow_ids)
            and (self.deployment_ids is None or entry.deployment_id in self.deployment_ids)
            and (self.state_types is None or entry.state_type in self.state_types)
            and (self.state_names is None or entry.state_name in self.state_names)
            and (self.tags is None or self.tags.match(entry.tags))
        )

    def clauses(self) -> Iterator[sa.ColumnElement[bool]]:
        """Yield the same condition in SQL."""
        if self.run_kind is not None:
            yield Transition.run_kind == self.run_kind
        for column, values in (
            (Transition.run_id, self.run_ids),
            (Transition.flow_run_id, self.flow_run_ids),
            (Transition.flow_id, self.flow_ids),
            (Transition.deployment_id, self.deployment_ids),
            (Transition.state_type, self.state_types),
            (Transition.state_name, None if self.state_names is None else _storable(self.state_names)),
        ):
            if values is not None:
                yield among(column, values)
        if self.tags is not None:
            yield from self.tags.clauses()


def _storable(texts: frozenset[str]) -> frozenset[str]:
    # PostgreSQL rejects parameters with NUL, and no stored text has one.
    return frozenset(text for text in texts if "\0" not in text)
