"""Steps of triggers: `step(index, state, input)` returns the firings and explains them.

The result is a function of the order of arrival alone: not of a clock, and not of the rounds in which the log is read.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple
from uuid import UUID, uuid5

from runstate.core.automations.chains import Chain, Reaction, longest
from runstate.core.automations.compiled import Compiled, EventLeaf, MetricLeaf
from runstate.core.automations.composites import firings_of
from runstate.core.automations.events import Event, Firing, Key, Part, Step, TriggerVerdict
from runstate.core.automations.index import Index
from runstate.core.automations.metrics import Measurement, measure
from runstate.core.automations.state import Deadline, State
from runstate.core.automations.windows import Look, expire, look
from runstate.documents.actions import TriggerState


class Fired(NamedTuple):
    """A firing of an automation."""

    id: UUID
    """The same whenever the same log is evaluated."""
    automation_id: UUID
    firing: Firing
    chain: Chain | None = None
    """The firings that led to it; None without any."""
    is_stopped: bool = False
    """Whether it does not count, because automations keep firing each other."""


class Result(NamedTuple):
    """The state after a step, the firings of automations in order, and an explanation."""

    state: State
    firings: list[Fired]
    explanation: list[Step]


class TooManySteps(Exception):
    """More deadlines were due than a caller allows."""


class _Run:
    """One step in progress."""

    def __init__(self, index: Index, state: State, *, explain: bool, most: int | None) -> None:
        self.index, self.state, self.explain = index, state, explain
        self.left = most
        self.fired: list[Fired] = []
        self.ordinals: Counter[tuple[UUID, str]] = Counter()
        self.steps: list[Step] = []

    def result(self) -> Result:
        return Result(self.state, self.fired, self.steps)

    def arrive(self, event: Event) -> None:
        """Let an event arrive: what is due by then comes first."""
        # By the time of arrival, not of occurrence: replaying the log then gives the same order.
        self.advance(event.received)
        state = self.state
        # Clients may send an event twice.
        if event.id in state.seen or event.id in state.waiting:
            self.note(event, TriggerVerdict.REPEATED)
        elif event.follows and event.follows != event.id and event.follows not in state.seen:
            state.wait(event)
            self.note(event, TriggerVerdict.WAITS)
        else:
            self.evaluate(event)

    def advance(self, until: datetime) -> None:
        """Work off the deadlines up to an instant, in order."""
        while (deadline := self.state.next_deadline()) and deadline.at <= until:
            self.count()
            heapq.heappop(self.state.queue)
            self.state.now = max(self.state.now, deadline.at)
            self.expire(deadline)
        self.state.now = max(self.state.now, until)

    def count(self) -> None:
        """Count a deadline. Raise TooManySteps if there were too many."""
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise TooManySteps

    def measure(self, found: Measurement) -> None:
        """Let a metric be measured."""
        self.advance(found.at)
        for automation in self.index.automations.values():
            for leaf in automation.metrics:
                if leaf.id == found.trigger_id:
                    self.compare(automation, leaf, found)

    def compare(self, automation: Compiled, leaf: MetricLeaf, found: Measurement) -> None:
        window, state = measure(leaf, self.state.windows.pop((leaf.id, ()), None), found)
        if window:
            self.state.windows[leaf.id, ()] = window
        # Only a trigger of its own says when it is over.
        if state is TriggerState.TRIGGERED or (state and automation.root is leaf):
            self.fire(automation, {leaf.id: (Firing(leaf.id, self.state.now, None, (), state=state),)})

    def expire(self, deadline: Deadline) -> None:
        if deadline.kind:
            self.evaluate(self.state.release(deadline.order[1]))
            return
        _, key, trigger_id = deadline.order
        automation, leaf = self.state.leaves[trigger_id]
        found = expire(leaf, self.state.windows[trigger_id, key], self.state.now)
        self.state.set_window(leaf, key, found.window)
        self.explain_look(leaf, key, found, None)
        self.fire(automation, {leaf.id: self.firings(leaf, key, found)})

    def evaluate(self, event: Event) -> None:
        """Evaluate an event, and right after it those that waited for it."""
        todo = [event]
        while todo:
            each = todo.pop()
            self.state.seen.add(each.id)
            for automation, leaves in self.index.named(each.name):
                self.fire(automation, {leaf.id: self.look(leaf, each) for leaf in leaves})
            self.note_others(each)
            # Reversed, because the last one is taken first.
            todo += reversed(self.state.released_by(each.id))

    def look(self, leaf: EventLeaf, event: Event) -> tuple[Firing, ...]:
        if not leaf.coverage.covers(event):
            self.explain_look(leaf, (), Look(None, TriggerVerdict.NOT_COVERED), event)
            return ()
        key = leaf.key(event)
        found = look(leaf, self.state.windows.get((leaf.id, key)), event, self.state.now)
        self.state.set_window(leaf, key, found.window)
        self.explain_look(leaf, key, found, event)
        return self.firings(leaf, key, found)

    def firings(self, leaf: EventLeaf, key: Key, found: Look) -> tuple[Firing, ...]:
        return tuple(Firing(leaf.id, self.state.now, part, _parts(part), leaf.labels(key)) for part in found.fired)

    def fire(self, automation: Compiled, fired: dict[UUID, tuple[Firing, ...]]) -> None:
        if any(fired.values()):
            found = firings_of(automation.root, fired, self.state.kept)
            self.fired += [self.checked(automation, each) for each in found]

    def checked(self, automation: Compiled, firing: Firing) -> Fired:
        chain = longest(part.chain for part in firing.parts)
        admits = chain is None or self.state.reactions.admit(Reaction(firing.fired, automation.id, chain))
        return Fired(self.id_of(firing), automation.id, firing, chain, is_stopped=not admits)

    def id_of(self, firing: Firing) -> UUID:
        """Return the id of a firing: a trigger can fire several times by one event, through several others inside."""
        event = firing.event.event_id if firing.event else None
        # Nothing random: `runstate verify` computes the same id from the log.
        what = f"{firing.fired.isoformat()} {event} {firing.state.value} {[each.value for each in firing.labels]}"
        ordinal = self.ordinals[firing.trigger_id, what]
        self.ordinals[firing.trigger_id, what] += 1
        return uuid5(firing.trigger_id, f"{what} {ordinal}")

    def explain_look(self, leaf: EventLeaf, key: Key, found: Look, event: Event | None) -> None:
        if self.explain:
            labels = () if found.verdict is TriggerVerdict.NOT_COVERED else leaf.labels(key)
            event_id = event.id if event else None
            self.steps.append(Step(self.state.now, leaf.path, found.verdict, event_id, labels, found.counted))

    def note(self, event: Event, verdict: TriggerVerdict) -> None:
        """Explain an event that no trigger evaluated."""
        for leaf in self.all_leaves() if self.explain else ():
            self.steps.append(Step(self.state.now, leaf.path, verdict, event.id))

    def note_others(self, event: Event) -> None:
        """Explain the triggers whose names do not match."""
        for leaf in self.all_leaves() if self.explain else ():
            if not leaf.names(event.name):
                self.steps.append(Step(self.state.now, leaf.path, TriggerVerdict.NOT_COVERED, event.id))

    def all_leaves(self) -> Iterator[EventLeaf]:
        return (leaf for automation in self.index.automations.values() for leaf in automation.leaves)


def _parts(part: Part | None) -> tuple[Part, ...]:
    return (part,) if part else ()


Input = Event | Measurement | datetime
"""An arrival, a measured metric, or the instant that time has come to."""


def step(index: Index, state: State, given: Input, *, explain: bool = False) -> Result:
    """Return the effect of an input. The state is changed in place."""
    return replay(index, state, (given,), explain=explain)


def replay(
    index: Index, state: State, given: Iterable[Input], *, explain: bool = False, most: int | None = None
) -> Result:
    """Return the effect of inputs, one after the other. Raise TooManySteps if more deadlines than `most` are due."""
    run = _Run(index, state, explain=explain, most=most)
    for each in given:
        if isinstance(each, Event):
            run.arrive(each)
        elif isinstance(each, Measurement):
            run.measure(each)
        else:
            run.advance(each)
    return run.result()
