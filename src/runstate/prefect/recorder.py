"""The recorder: collects the events of all sockets, and writes those that wait together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Outcome, RecordState
from runstate.core.commands.events import emit_events
from runstate.database.failures import is_temporary
from runstate.documents.events import EmitEvents
from runstate.errors import NotFound, Overloaded, Timeout, Unavailable
from runstate.prefect.events import Event
from runstate.prefect.reports import Report, is_report

TOGETHER: Final = 300
"""Largest number of events that are written in one transaction."""
MOST_WAITING: Final = 3_000
"""Number of waiting events from which on no more are read from clients."""
MOST_BYTES: Final = 2**25
"""Bytes of waiting and parked events from which on no more are read from clients."""
MOST_PARKED: Final = 10_000
"""Largest number of states that wait for what they refer to."""
PATIENCE_SECONDS: Final = 5.0
"""Seconds for which a state waits for what it refers to: its flow run, or the state that it follows."""
PAUSE_SECONDS: Final = 0.1
"""Seconds between two attempts to write parked states."""
AGAIN_SECONDS: Final = 0.5
"""Seconds between two attempts to write while the database is unavailable."""

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Waiting:
    """An event that is not written yet."""

    content: RecordState | Event
    done: asyncio.Future[None]
    """Done when the event is committed, or dropped."""
    since: float
    """Time of its arrival, by the loop's clock."""
    size: int = 0
    """Approximate number of bytes."""

    def finish(self) -> None:
        """Tell the socket."""
        if not self.done.done():
            self.done.set_result(None)


class Recorder:
    """Writes the events of clients in the order of their arrival. Nothing is acknowledged before it is committed.

    A state is parked while the server knows neither its flow run nor the state that it follows: both can arrive on
    another connection. Then the state is written without its predecessor, or dropped without its flow run.
    """

    def __init__(self, batcher: Batcher, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.batcher = batcher
        self.patience_seconds = patience_seconds
        self.queue: deque[Waiting] = deque()
        self.parked: list[Waiting] = []
        self.dropped: Callable[[str], None] = lambda _: None
        """Called with the reason for which an event was dropped."""
        self.has_arrived = asyncio.Event()
        self.has_room = asyncio.Event()
        self.held = 0
        """Bytes of the events that are not finished."""
        self.closing = False
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start writing."""
        self.task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write what has arrived, and stop."""
        self.closing = True
        self.has_arrived.set()
        if self.task:
            await self.task

    async def take(self, event: Any, size: int, **who: Any) -> asyncio.Future[None]:
        """Take an event of so many bytes when there is room for it, and return the future of its commit.

        Raise ValueError if it is not valid.
        """
        content = _content(event, self.batcher, who)
        while self.is_full:
            self.has_room.clear()
            await self.has_room.wait()
        loop = asyncio.get_running_loop()
        waiting = Waiting(content, loop.create_future(), loop.time(), size)
        self.held += size
        waiting.done.add_done_callback(lambda _: self._release(size))
        self.queue.append(waiting)
        self.has_arrived.set()
        return waiting.done

    @property
    def is_full(self) -> bool:
        """Whether no more events are taken for now."""
        return len(self.queue) >= MOST_WAITING or self.held >= MOST_BYTES

    def _release(self, size: int) -> None:
        self.held -= size
        self._make_room()

    def _make_room(self) -> None:
        if not self.is_full:
            self.has_room.set()

    def drop(self, reason: str, **more: Any) -> None:
        """Log and count an event that is not written."""
        log.warning("event_dropped", reason=reason, **more)
        self.dropped(reason)

    async def _run(self) -> None:
        while not (self.closing and not self.queue):
            await self._arrival()
            taken = self._take()
            try:
                await self._write(taken)
            except Exception as error:  # the loop must go on
                log.warning("events_not_written", error=str(error)[:200], is_temporary=is_temporary(error))
                self.queue.extendleft(reversed(taken))
                await asyncio.sleep(AGAIN_SECONDS)
                if self.closing:
                    return

    async def _arrival(self) -> None:
        """Wait for an event, or until parked states are tried again."""
        if not self.queue and not self.closing:
            self.has_arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_SECONDS if self.parked else None):
                    await self.has_arrived.wait()

    def _take(self) -> list[Waiting]:
        """Return and remove the events to write next: parked ones first, because they arrived first."""
        taken, self.parked = self.parked, []
        while self.queue and len(taken) < TOGETHER:
            taken.append(self.queue.popleft())
        self._make_room()
        return taken

    async def _write(self, taken: Sequence[Waiting]) -> None:
        """Write events: states in one transaction, others in another one. Raise an error if all can be tried again."""
        now = asyncio.get_running_loop().time()
        states = [(each, each.content) for each in taken if isinstance(each.content, RecordState)]
        events = [each for each in taken if isinstance(each.content, Event)]
        if states:
            # Without its predecessor a state is written when it has waited long enough.
            requests = [replace(content, holds=not self._is_over(each, now)) for each, content in states]
            outcomes = await self.batcher.submit(requests)
            # Recording is repeatable, so the whole batch is tried again.
            for outcome in outcomes:
                if isinstance(outcome, Overloaded | Unavailable | Timeout):
                    raise outcome
            for (each, _), outcome in zip(states, outcomes, strict=True):
                self._settle(each, outcome, now)
        if events:
            await self._emit(events)

    def _is_over(self, waiting: Waiting, now: float) -> bool:
        return self.closing or now - waiting.since > self.patience_seconds or len(self.parked) >= MOST_PARKED

    def _settle(self, waiting: Waiting, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, NotFound) and not self._is_over(waiting, now):
            self.parked.append(waiting)
            return
        if isinstance(outcome, Exception):
            reason = "unknown flow run" if isinstance(outcome, NotFound) else "invalid"
            self.drop(reason, error=str(outcome)[:200], missing=getattr(outcome, "missing_id", None))
        waiting.finish()

    async def _emit(self, events: Sequence[Waiting]) -> None:
        """Append events to the log. If one of them cannot be stored, each is appended alone."""
        try:
            await emit_events(self.batcher.context, EmitEvents(events=[_document(each) for each in events]))
        except Exception as error:
            if is_temporary(error) or isinstance(error, Overloaded | Unavailable | Timeout):
                raise
            if len(events) > 1:
                for each in events:
                    await self._emit([each])
                return
            self.drop("invalid", error=str(error)[:200])
        for each in events:
            each.finish()


def _content(event: Any, batcher: Batcher, who: dict[str, Any]) -> RecordState | Event:
    if not isinstance(event, dict):
        raise ValueError("an event is an object")  # noqa: TRY004 callers handle one kind of error
    if is_report(event):
        return Report.model_validate(event).request(batcher.clock(), **who)
    return Event.model_validate(event)


def _document(waiting: Waiting) -> Any:
    return waiting.content.document() if isinstance(waiting.content, Event) else None
