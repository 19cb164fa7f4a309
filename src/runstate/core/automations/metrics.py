"""Metric triggers: a comparison that holds, or no longer holds, for a while. The window is its only state."""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final, NamedTuple
from uuid import UUID

from runstate.core.automations.compiled import MetricLeaf
from runstate.core.automations.windows import Window
from runstate.documents.actions import TriggerState
from runstate.documents.triggers import MetricOperator

COMPARISONS: Final[dict[MetricOperator, Callable[[float, float], bool]]] = {
    MetricOperator.LT: operator.lt,
    MetricOperator.LTE: operator.le,
    MetricOperator.GT: operator.gt,
    MetricOperator.GTE: operator.ge,
}


class Phase(IntEnum):
    """The count of the window of a metric trigger. Without a window the comparison does not hold."""

    HOLDS = 1
    """The comparison holds since the start of the window."""
    TRIGGERED = 2
    """It has held long enough: the trigger fired."""
    RECOVERS = 3
    """It no longer holds since the start of the window."""


class Measurement(NamedTuple):
    """A measured number."""

    trigger_id: UUID
    at: datetime
    value: float | None
    """None if there is nothing to measure; then the comparison does not hold."""


def measure(leaf: MetricLeaf, window: Window | None, found: Measurement) -> tuple[Window | None, TriggerState | None]:
    """Return the window after a measurement, and the state of the firing if the trigger fires."""
    compare = COMPARISONS[leaf.trigger.operator]
    holds = found.value is not None and compare(found.value, leaf.trigger.threshold)
    phase = Phase(window.count) if window else None
    was_triggered = phase in (Phase.TRIGGERED, Phase.RECOVERS)
    if holds is was_triggered:
        # A short exception does not count.
        return (_window(leaf, found.at, Phase.TRIGGERED) if was_triggered else None), None
    changing = Phase.HOLDS if holds else Phase.RECOVERS
    if window is None or phase is not changing:
        return _window(leaf, found.at, changing), None
    if found.at < window.end:
        return window, None
    if holds:
        return _window(leaf, found.at, Phase.TRIGGERED), TriggerState.TRIGGERED
    return None, TriggerState.RESOLVED


def _window(leaf: MetricLeaf, at: datetime, phase: Phase) -> Window:
    return Window(at, at + timedelta(seconds=leaf.trigger.firing_for_seconds), int(phase))
