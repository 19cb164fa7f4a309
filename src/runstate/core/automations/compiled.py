"""Triggers and automations in the form in which they are evaluated: patterns compiled, event triggers listed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

from runstate.core.automations.events import Event, Key, LabelValue
from runstate.core.automations.patterns import LabelsPattern, NamePatterns
from runstate.documents.labels import LabelRef
from runstate.documents.triggers import EventTrigger, MetricTrigger, Posture, SequenceTrigger, Trigger

Rank = tuple[UUID, int]
"""Place of a trigger among all: the automation, and the place in its tree. Simultaneous deadlines have this order."""


class Coverage:
    """Patterns of the resources of an event."""

    __slots__ = ("match", "related")

    def __init__(self, trigger: EventTrigger | MetricTrigger) -> None:
        self.match = LabelsPattern(trigger.match)
        # An empty item demands nothing, not even a related resource.
        self.related = tuple(LabelsPattern(each) for each in trigger.match_related if each)

    def covers(self, event: Event) -> bool:
        """Return whether the resource and the related resources match."""
        return self.match.match(event.resource) and all(
            any(pattern.match(labels) for labels in event.related) for pattern in self.related
        )


class Node:
    """A trigger at a place in a tree."""

    __slots__ = ("id", "path", "rank")

    def __init__(self, trigger: Any, rank: Rank, path: tuple[int, ...]) -> None:
        self.id: UUID = trigger.id
        self.rank, self.path = rank, path


class EventLeaf(Node):
    """An event trigger."""

    __slots__ = ("after", "coverage", "expect", "for_each", "proactive", "threshold", "within")

    def __init__(self, trigger: EventTrigger, rank: Rank, path: tuple[int, ...]) -> None:
        super().__init__(trigger, rank, path)
        self.after = NamePatterns(trigger.after) if trigger.after else None
        self.expect = NamePatterns(trigger.expect) if trigger.expect else None
        self.coverage = Coverage(trigger)
        self.for_each = tuple(sorted(trigger.for_each, key=lambda each: (each.label, each.role or "")))
        self.proactive = trigger.posture is Posture.PROACTIVE
        self.threshold = trigger.threshold
        self.within = timedelta(seconds=trigger.within_seconds)

    def starts(self, name: str) -> bool:
        """Return whether an event of a name opens a window."""
        return self.after is not None and self.after.match(name)

    def expects(self, name: str) -> bool:
        """Return whether an event of a name is counted."""
        return self.expect is None or self.expect.match(name)

    def names(self, name: str) -> bool:
        """Return whether an event of a name can have an effect."""
        return self.expects(name) or self.starts(name)

    def key(self, event: Event) -> Key:
        """Return the values of `for_each`."""
        return tuple(_value(each, event) for each in self.for_each)

    def labels(self, key: Key) -> tuple[LabelValue, ...]:
        """Return the values of `for_each` with their labels."""
        return tuple(LabelValue(each.label, each.role, value) for each, value in zip(self.for_each, key, strict=True))


class MetricLeaf(Node):
    """A metric trigger."""

    __slots__ = ("trigger",)

    def __init__(self, trigger: MetricTrigger, rank: Rank, path: tuple[int, ...]) -> None:
        super().__init__(trigger, rank, path)
        self.trigger = trigger


class Composite(Node):
    """A compound or a sequence of other triggers."""

    __slots__ = ("children", "is_sequence", "required", "within")

    def __init__(self, trigger: Any, rank: Rank, path: tuple[int, ...], children: tuple[Node, ...]) -> None:
        super().__init__(trigger, rank, path)
        self.children = children
        self.is_sequence = isinstance(trigger, SequenceTrigger)
        self.required = getattr(trigger, "require", None) or len(children)
        seconds = trigger.within_seconds
        self.within = None if seconds is None else timedelta(seconds=seconds)


class Compiled:
    """An automation that is evaluated."""

    __slots__ = ("id", "leaves", "metrics", "nodes", "root")

    def __init__(self, id: UUID, trigger: Trigger) -> None:
        self.id = id
        self.root = _compile(trigger, id, (), iter(range(1_000_000)))
        self.nodes = tuple(below(self.root))
        self.leaves = tuple(each for each in self.nodes if isinstance(each, EventLeaf))
        self.metrics = tuple(each for each in self.nodes if isinstance(each, MetricLeaf))


def below(node: Node) -> Iterator[Node]:
    """Yield a trigger and all triggers inside it, in their order."""
    yield node
    for child in getattr(node, "children", ()):
        yield from below(child)


def _compile(trigger: Any, automation: UUID, path: tuple[int, ...], places: Iterator[int]) -> Node:
    rank = (automation, next(places))
    if isinstance(trigger, EventTrigger):
        return EventLeaf(trigger, rank, path)
    if isinstance(trigger, MetricTrigger):
        return MetricLeaf(trigger, rank, path)
    children = [_compile(each, automation, (*path, place), places) for place, each in enumerate(trigger.triggers)]
    return Composite(trigger, rank, path, tuple(children))


def _value(ref: LabelRef, event: Event) -> str:
    if ref.role is None:
        return event.resource.get(ref.label, "")
    return next((labels.get(ref.label, "") for labels in event.related if labels.get("resource.role") == ref.role), "")
