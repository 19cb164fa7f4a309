"""The state of triggers: windows, kept firings and waiting events, with the queue of their deadlines."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from runstate.core.automations.chains import Reactions
from runstate.core.automations.compiled import Compiled, EventLeaf
from runstate.core.automations.composites import Kept
from runstate.core.automations.events import Event, Key
from runstate.core.automations.windows import LATENESS, Window, due, first_window

WindowId = tuple[UUID, Key]
"""The trigger and the key of a window."""


class Deadline(NamedTuple):
    """An instant at which a window or a waiting event needs attention. Simultaneous ones have a fixed order."""

    at: datetime
    kind: int
    """0 for windows, which come first, and 1 for waiting events."""
    order: tuple[Any, ...]


@dataclass(slots=True)
class State:
    """Everything that triggers remember. Steps change it in place; nothing else does.

    Only what a round touches needs to be there: windows of the keys of its events, windows and waiting events whose
    deadlines it reaches, kept firings of the automations of both, and which of the events are `seen`.
    """

    now: datetime
    """The latest arrival or deadline. It must be stored, since arrivals can be out of order."""
    windows: dict[WindowId, Window] = field(default_factory=dict)
    kept: dict[UUID, Kept] = field(default_factory=dict)
    """Firings inside composites, by the id of the composite."""
    waiting: dict[UUID, Event] = field(default_factory=dict)
    """Events that wait for the event that they follow, by their id."""
    followers: dict[UUID, set[UUID]] = field(default_factory=dict)
    """Ids of waiting events by the id of the event that they follow."""
    seen: set[UUID] = field(default_factory=set)
    """Events that were evaluated."""
    reactions: Reactions = field(default_factory=Reactions)
    leaves: dict[UUID, tuple[Compiled, EventLeaf]] = field(default_factory=dict)
    """Enabled event triggers by id: deadlines of others are not due."""
    queue: list[Deadline] = field(default_factory=list)
    """Deadlines as a heap. Entries that no longer hold are skipped."""

    def add(self, automation: Compiled) -> None:
        """Begin or go on with an automation at the present instant: windows that ended meanwhile are forgotten.

        All its windows must be loaded.
        """
        for leaf in automation.leaves:
            self.leaves[leaf.id] = automation, leaf
            ended = [key for (of, key), each in self.windows.items() if of == leaf.id and each.end <= self.now]
            for key in ended:
                self.set_window(leaf, key, None)
            window = self.windows.get((leaf.id, ())) or first_window(leaf, self.now)
            if window:
                self.set_window(leaf, (), window)

    def load(self, automations: Iterable[Compiled]) -> None:
        """Take over the windows and waiting events that were stored: queue their deadlines."""
        for automation in automations:
            self.leaves |= {leaf.id: (automation, leaf) for leaf in automation.leaves}
        for (trigger_id, key), window in self.windows.items():
            if known := self.leaves.get(trigger_id):
                self._queue_window(known[1], key, window)
        for event in self.waiting.values():
            self.wait(event)

    def disable(self, automation: Compiled) -> None:
        """Stop an automation; its windows and kept firings stay."""
        for leaf in automation.leaves:
            self.leaves.pop(leaf.id, None)

    def remove(self, automation: Compiled) -> None:
        """Forget an automation with its windows and kept firings."""
        self.disable(automation)
        ids = {node.id for node in automation.nodes}
        self.windows = {each: window for each, window in self.windows.items() if each[0] not in ids}
        self.kept = {each: rows for each, rows in self.kept.items() if each not in ids}

    def set_window(self, leaf: EventLeaf, key: Key, window: Window | None) -> None:
        """Replace the window of a key, or forget it."""
        if window is None:
            self.windows.pop((leaf.id, key), None)
            return
        self.windows[leaf.id, key] = window
        self._queue_window(leaf, key, window)

    def wait(self, event: Event) -> None:
        """Let an event wait for the one that it follows."""
        assert event.follows  # noqa: S101 others do not wait
        self.waiting[event.id] = event
        self.followers.setdefault(event.follows, set()).add(event.id)
        heapq.heappush(self.queue, Deadline(event.received + LATENESS, 1, (event.position, event.id)))

    def release(self, id: UUID) -> Event:
        """Take an event out of those that wait."""
        event = self.waiting.pop(id)
        assert event.follows  # noqa: S101 others do not wait
        others = self.followers[event.follows]
        others.discard(id)
        if not others:
            del self.followers[event.follows]
        return event

    def released_by(self, id: UUID) -> list[Event]:
        """Take out the events that wait for an event, in the order in which they occurred."""
        found = [self.release(each) for each in tuple(self.followers.get(id, ()))]
        return sorted(found, key=lambda each: (each.occurred, each.position))

    def next_deadline(self) -> Deadline | None:
        """Return the next deadline that holds."""
        while self.queue:
            if self._holds(self.queue[0]):
                return self.queue[0]
            heapq.heappop(self.queue)
        return None

    def _holds(self, deadline: Deadline) -> bool:
        if deadline.kind:
            return deadline.order[1] in self.waiting
        _, key, trigger_id = deadline.order
        window, known = self.windows.get((trigger_id, key)), self.leaves.get(trigger_id)
        return window is not None and known is not None and due(known[1], window) == deadline.at

    def _queue_window(self, leaf: EventLeaf, key: Key, window: Window) -> None:
        if (at := due(leaf, window)) is not None:
            heapq.heappush(self.queue, Deadline(at, 0, (leaf.rank, key, leaf.id)))


def windows_in_order(state: State) -> Iterator[tuple[EventLeaf, Key, Window]]:
    """Yield the windows in a fixed order: by trigger, then by key."""
    known = [(state.leaves[of][1], key, window) for (of, key), window in state.windows.items() if of in state.leaves]
    yield from sorted(known, key=lambda each: (each[0].rank, each[1]))
