"""Compound and sequence triggers: the firings of the triggers inside are kept, one of each, until enough are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from runstate.core.automations.compiled import Composite, Node
from runstate.core.automations.events import Firing, Part

Kept = dict[UUID, Firing]
"""The newest firing of each trigger inside a composite, by its id, in the order of the firings."""


def firings_of(node: Node, fired: Mapping[UUID, tuple[Firing, ...]], kept: dict[UUID, Kept]) -> list[Firing]:
    """Return the firings of a trigger, given those of the triggers without others inside. Changes `kept`."""
    if not isinstance(node, Composite):
        return list(fired.get(node.id, ()))
    inner = [(child, firings_of(child, fired, kept)) for child in node.children]
    if not any(firings for _, firings in inner):
        return []
    rows = kept.setdefault(node.id, {})
    found = _sequence(node, inner, rows) if node.is_sequence else _compound(node, inner, rows)
    if not rows:
        del kept[node.id]
    return found


def _compound(node: Composite, inner: list[tuple[Node, list[Firing]]], rows: Kept) -> list[Firing]:
    found = []
    for child, firings in inner:
        for firing in firings:
            _keep(rows, child.id, firing)
            _drop_old(node, rows, firing.fired)
            if len(rows) >= node.required:
                found.append(_completed(node, rows, firing))
    return found


def _sequence(node: Composite, inner: list[tuple[Node, list[Firing]]], rows: Kept) -> list[Firing]:
    """Keep firings in order only: the rows are always those of the first triggers, one after the other."""
    fired = next(firings[-1].fired for _, firings in inner if firings)
    _drop_old(node, rows, fired)
    # Where firings that became too old leave a gap in the order, the sequence begins anew.
    if len(rows) != sum(1 for _ in _prefix(node, rows)):
        rows.clear()
    # An event counts for one trigger only: for the last one that it can be the next firing of.
    possible = [place for place, (_, firings) in enumerate(inner) if firings and place <= len(rows)]
    if not possible:
        return []
    place = possible[-1]
    for child in node.children[place:]:
        rows.pop(child.id, None)
    firing = inner[place][1][-1]
    rows[node.children[place].id] = firing
    return [_completed(node, rows, firing)] if len(rows) == len(node.children) else []


def _prefix(node: Composite, rows: Kept) -> Iterable[Node]:
    for child in node.children:
        if child.id not in rows:
            return
        yield child


def _keep(rows: Kept, child: UUID, firing: Firing) -> None:
    # Removed first: in a dict, a key that is set again keeps its old place.
    rows.pop(child, None)
    rows[child] = firing


def _drop_old(node: Composite, rows: Kept, newest: datetime) -> None:
    if node.within is None:
        return
    for child in [child for child, firing in rows.items() if firing.fired < newest - node.within]:
        del rows[child]


def _completed(node: Composite, rows: Kept, firing: Firing) -> Firing:
    """Return the firing of a composite, and forget those inside."""
    # A set: one event can have a part in several of the firings inside.
    parts: set[Part] = {part for each in rows.values() for part in each.parts}
    rows.clear()
    return replace(firing, trigger_id=node.id, parts=tuple(sorted(parts)), labels=())
