"""Rounds: what a reader of the log loads before it evaluates entries, and what it writes afterwards."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar
from uuid import UUID

from runstate.core.automations.events import Event
from runstate.core.automations.index import Index
from runstate.core.automations.state import WindowId

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def window_ids(index: Index, events: Iterable[Event]) -> set[WindowId]:
    """Return the windows that events can have an effect on. Events that wait for one of them count, too."""
    return {
        (leaf.id, leaf.key(event))
        for event in events
        for _, leaves in index.named(event.name)
        for leaf in leaves
        if leaf.coverage.covers(event)
    }


def composite_ids(index: Index, events: Iterable[Event]) -> set[UUID]:
    """Return the compound and sequence triggers of the automations that events can have an effect on."""
    automations = {automation for event in events for automation, _ in index.named(event.name)}
    return {node.id for automation in automations for node in automation.nodes if hasattr(node, "children")}


def difference(before: Mapping[K, V], after: Mapping[K, V]) -> tuple[dict[K, V], set[K]]:
    """Return what to write, and the keys to delete, so that rows that were loaded as `before` become `after`."""
    written = {key: value for key, value in after.items() if before.get(key) != value}
    return written, {key for key in before if key not in after}
