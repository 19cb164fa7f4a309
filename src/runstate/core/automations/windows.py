"""Windows of event triggers: one at most for each trigger and key. Times are those at which events occurred."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from runstate.core.automations.compiled import EventLeaf
from runstate.core.automations.events import Event, Part, TriggerVerdict

LATENESS: Final = timedelta(minutes=15)
"""Events that arrive out of order count if they are at most this late; windows that ended are kept as long."""


@dataclass(frozen=True, slots=True)
class Window:
    """Events that occurred from `start` to before `end`."""

    start: datetime
    end: datetime
    count: int = 0
    """Number of events; -1 before the event that opened it and is expected, too."""
    last: Part | None = None
    """The last event that was counted in it, or that matched `after`."""


class Look(NamedTuple):
    """The window after an event or a deadline, and whether the trigger fired."""

    window: Window | None
    verdict: TriggerVerdict
    counted: int | None = None
    fired: tuple[Part | None, ...] = ()
    """For each firing its event; None for the absence of any."""


def due(leaf: EventLeaf, window: Window) -> datetime | None:
    """Return the instant at which a window needs attention without an event; None if it never does."""
    if leaf.proactive:
        return window.end
    # Until then, events that arrive late find out that they are too late.
    return window.end + LATENESS if leaf.within else None


def first_window(leaf: EventLeaf, since: datetime) -> Window | None:
    """Return the window that a new trigger has at once: of PROACTIVE ones without `after` and `for_each`."""
    # The absence of events can only be noticed in a window that no event has to open.
    is_permanent = leaf.proactive and not leaf.after and not leaf.for_each
    return Window(since, since + leaf.within) if is_permanent else None


def expire(leaf: EventLeaf, window: Window, now: datetime) -> Look:
    """Return the effect of the deadline of a window."""
    if not leaf.proactive:
        return Look(None, TriggerVerdict.ENDED, window.count)
    following = _following(leaf, window, now)
    if window.count < leaf.threshold:
        return Look(following, TriggerVerdict.FIRED, window.count, (window.last,))
    return Look(following, TriggerVerdict.ENDED, window.count)


def look(leaf: EventLeaf, window: Window | None, event: Event, now: datetime) -> Look:
    """Return the effect of an event that the trigger covers."""
    fired: tuple[Part | None, ...] = ()
    if window and leaf.proactive and event.occurred >= window.end:
        # Its deadline is still to come, but the clock of the event is ahead of ours.
        _, _, _, fired = ended = expire(leaf, window, now)
        window = _containing(leaf, ended.window, event.occurred)
    if window and leaf.after and leaf.within and event.occurred >= window.end:
        window = None
    window, opened = _opened(leaf, window, event)
    if not leaf.expects(event.name):
        # It matches `after`, so that there is a window.
        return _with(fired, Look(window, _started(window, event), window.count if window else None))
    if window is None:
        return _with(fired, Look(None, TriggerVerdict.NO_WINDOW))
    if event.occurred < window.start:
        return _with(fired, Look(window, TriggerVerdict.TOO_LATE, window.count))
    return _with(fired, _counted(leaf, window, event, now, opened=opened))


def _with(fired: tuple[Part | None, ...], found: Look) -> Look:
    return found._replace(fired=fired + found.fired) if fired else found


def _opened(leaf: EventLeaf, window: Window | None, event: Event) -> tuple[Window | None, bool]:
    """Return the window for an event, and whether the event opened it."""
    if leaf.after and leaf.starts(event.name):
        if window is None:
            count = -1 if leaf.expects(event.name) else 0
            return Window(event.occurred, event.occurred + leaf.within, count, _part(leaf, event)), True
        return replace(window, last=_part(leaf, event)), False
    if window is None and not leaf.after:
        # It begins earlier, so that events that overtook each other on their way are counted, too.
        return Window(event.occurred - LATENESS, event.occurred + leaf.within), True
    return window, False


def _started(window: Window | None, event: Event) -> TriggerVerdict:
    return TriggerVerdict.TOO_LATE if window and event.occurred < window.start else TriggerVerdict.OPENED


def _counted(leaf: EventLeaf, window: Window, event: Event, now: datetime, *, opened: bool) -> Look:
    is_inside = event.occurred < window.end or not leaf.within
    if not is_inside:
        start = max(window.end, event.occurred)
        window = Window(start, start + leaf.within)
    before, counted = window.count, replace(window, count=window.count + 1, last=_part(leaf, event))
    is_enough = counted.count >= leaf.threshold
    if leaf.proactive:
        if is_enough and before < leaf.threshold and leaf.starts(event.name):
            # A heartbeat: the silence after it is measured.
            begun = Window(event.occurred, event.occurred + leaf.within, 0, _part(leaf, event))
            return Look(begun, TriggerVerdict.OPENED, 0)
        return Look(counted, TriggerVerdict.OPENED if opened and leaf.after else TriggerVerdict.COUNTED, counted.count)
    if not is_enough:
        # A window without a length that an event opened has room for one event.
        following = counted if leaf.within or not leaf.after else None
        return Look(following, TriggerVerdict.COUNTED, counted.count)
    return Look(_after_firing(leaf, counted, event), TriggerVerdict.FIRED, counted.count, (_part(leaf, event),))


def _after_firing(leaf: EventLeaf, window: Window, event: Event) -> Window | None:
    """Return the window after a REACTIVE firing, so that there is at most one firing in each."""
    if leaf.after or not leaf.within:
        return None
    start = max(window.end, event.occurred)
    return Window(start, start + leaf.within)


def _following(leaf: EventLeaf, window: Window, now: datetime) -> Window | None:
    """Return the window after one that ended; None with `after`, until the next event that opens one."""
    if leaf.after:
        return None
    # A window that was opened by a late event has followers in the past, which nobody waits for any more.
    skipped = max((now - window.end) // leaf.within, 0)
    start = window.end + skipped * leaf.within
    return Window(start, start + leaf.within)


def _containing(leaf: EventLeaf, window: Window | None, occurred: datetime) -> Window | None:
    """Return the window of the same grid that an event belongs to."""
    if window is None or occurred < window.end:
        return window
    start = window.start + (occurred - window.start) // leaf.within * leaf.within
    return Window(start, start + leaf.within)


def _part(leaf: EventLeaf, event: Event) -> Part:
    # The absence of events fires, at most every ten seconds: the events that came did not lead to it.
    is_cause = leaf.after or not leaf.proactive
    return Part(event.position, event.id, event.chain if is_cause else None)
