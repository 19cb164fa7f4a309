"""Chains: the automations that led to an event one after another, and the limits that end chains without an end."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

K = TypeVar("K")

DEEPEST: Final = 20
"""Maximum number of firings one after another; also of ways in which, and repetitions with which, one root leads to
firings of the same automation."""
MOST_CAUSES: Final = 1_000
"""Maximum number of firings that one root leads to and that an automation reacts to."""
MEMORY: Final = timedelta(hours=1)
"""Time for which a reaction counts."""


class Chain(NamedTuple):
    """The firings that led to an event."""

    root: UUID
    """Id of the event that the chain began with; of the first firing if it had none."""
    cause: UUID
    """Id of the last firing."""
    automations: tuple[UUID, ...]
    """The automations that fired, in order."""


class Reaction(NamedTuple):
    """A firing because of a chain."""

    fired: datetime
    automation_id: UUID
    chain: Chain

    @property
    def repeats(self) -> bool:
        """Whether the firing or an earlier one of the chain is that of an automation that fired before."""
        fired = (*self.chain.automations, self.automation_id)
        return len(set(fired)) < len(fired)


@dataclass(slots=True)
class _Counts:
    """Reactions of one automation to the chains of one root."""

    ways: Counter[tuple[UUID, ...]] = field(default_factory=Counter)
    """Chains without a repetition, as the automations in them."""
    causes: Counter[UUID] = field(default_factory=Counter)
    repeated: Counter[UUID] = field(default_factory=Counter)
    """Causes in chains with a repetition."""

    def allow(self, reaction: Reaction) -> bool:
        chain = reaction.chain
        if reaction.repeats:
            return _has_room(self.repeated, chain.cause, DEEPEST)
        # Many runs of one firing are one way; automations that all match each other have thousands of ways.
        return _has_room(self.ways, chain.automations, DEEPEST) and _has_room(self.causes, chain.cause, MOST_CAUSES)

    def add(self, reaction: Reaction, number: int) -> None:
        chain = reaction.chain
        if reaction.repeats:
            _count(self.repeated, chain.cause, number)
        else:
            _count(self.ways, chain.automations, number)
            _count(self.causes, chain.cause, number)


def _has_room(counter: Counter[K], key: K, most: int) -> bool:
    return key in counter or len(counter) < most


def _count(counter: Counter[K], key: K, number: int) -> None:
    counter[key] += number
    if not counter[key]:
        del counter[key]


class Reactions:
    """Reactions to chains in the last hour. The result depends on the order of firings alone."""

    __slots__ = ("counts", "recent")

    def __init__(self, reactions: Iterable[Reaction] = ()) -> None:
        self.recent = deque[Reaction]()
        self.counts: dict[tuple[UUID, UUID], _Counts] = {}
        for each in reactions:
            self._add(each)

    def admit(self, reaction: Reaction) -> bool:
        """Count a reaction. Return False if it is to be stopped, because automations keep firing each other."""
        self._forget(reaction.fired - MEMORY)
        counts = self.counts.get(_key(reaction))
        if len(reaction.chain.automations) >= DEEPEST or (counts and not counts.allow(reaction)):
            return False
        self._add(reaction)
        return True

    def _add(self, reaction: Reaction) -> None:
        self.recent.append(reaction)
        self.counts.setdefault(_key(reaction), _Counts()).add(reaction, 1)

    def _forget(self, until: datetime) -> None:
        while self.recent and self.recent[0].fired <= until:
            old = self.recent.popleft()
            counts = self.counts[_key(old)]
            counts.add(old, -1)
            # Otherwise memory would grow with each root there ever was.
            if not (counts.causes or counts.repeated):
                del self.counts[_key(old)]


def _key(reaction: Reaction) -> tuple[UUID, UUID]:
    return reaction.chain.root, reaction.automation_id


def longest(chains: Iterable[Chain | None]) -> Chain | None:
    """Return the longest of some chains; of equally long ones the last; None without any."""
    return max((each for each in chains if each), key=lambda each: len(each.automations), default=None)
