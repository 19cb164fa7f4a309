"""Events as triggers see them, and firings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

from runstate.core.automations.chains import Chain
from runstate.core.automations.patterns import Labels
from runstate.documents.actions import TriggerState


@dataclass(frozen=True, slots=True)
class Event:
    """An event. Its resources are labels by name, with `resource.id`, `resource.name` and `resource.role`."""

    id: UUID
    name: str
    occurred: datetime
    received: datetime
    """The clock of firings; given by the server."""
    resource: Labels
    related: tuple[Labels, ...] = ()
    follows: UUID | None = None
    position: int = 0
    """Place in the order of arrival."""
    chain: Chain | None = None
    """The firings that led to it; None without any."""
    payload: Mapping[str, Any] = field(default_factory=dict)


class Part(NamedTuple):
    """An event that has a part in a firing, in the order of arrival."""

    position: int
    event_id: UUID
    chain: Chain | None = None


class LabelValue(NamedTuple):
    """The value of a label of `for_each`."""

    label: str
    role: str | None
    value: str


Key = tuple[str, ...]
"""Values of `for_each`, in the order of its labels."""


@dataclass(frozen=True, slots=True)
class Firing:
    """A firing of a trigger."""

    trigger_id: UUID
    fired: datetime
    """The arrival of the event, or the end of the window."""
    event: Part | None
    """The event that completed it, or the last of the window; None for the absence of any."""
    parts: tuple[Part, ...]
    """All events that have a part in it."""
    labels: tuple[LabelValue, ...] = ()
    state: TriggerState = TriggerState.TRIGGERED


class TriggerVerdict(Enum):
    """The effect of an event on an event trigger, or of the end of a window."""

    REPEATED = "REPEATED"
    """An event with this id was evaluated before."""
    WAITS = "WAITS"
    """The event waits for the event that it follows."""
    NOT_COVERED = "NOT_COVERED"
    """Its name, resource or related resources do not match."""
    NO_WINDOW = "NO_WINDOW"
    """No window is open in which it could be counted."""
    TOO_LATE = "TOO_LATE"
    """It occurred before the window began."""
    OPENED = "OPENED"
    """It opened a window, or matches `after` while one is open."""
    COUNTED = "COUNTED"
    """It was counted; there are not enough events."""
    FIRED = "FIRED"
    """The trigger fired: there are enough events, or the window ended with too few."""
    ENDED = "ENDED"
    """The window ended without a firing."""


@dataclass(frozen=True, slots=True)
class Step:
    """The effect of an event on one event trigger, or of the end of one of its windows."""

    at: datetime
    """The arrival of the event, or the end of the window."""
    path: tuple[int, ...]
    """Position of the event trigger among the triggers, from outside in; empty for a trigger of its own."""
    verdict: TriggerVerdict
    event_id: UUID | None = None
    labels: tuple[LabelValue, ...] = ()
    count: int | None = None
    """Number of events in the window afterwards; None without one."""
