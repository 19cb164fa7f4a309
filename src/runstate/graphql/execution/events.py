"""Events of subscriptions: executed once for all subscribers to the same, and not all the time."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from traceback import clear_frames
from typing import Any, Final, NamedTuple
from weakref import WeakSet

import orjson
from graphql import GraphQLError
from strawberry.execution.is_awaitable import optimized_is_awaitable

from runstate.database.budget import Room
from runstate.graphql.types.scalars import dumped

REST: Final = 2
"""Rest after the execution of an event that reads rows, as a multiple of the time that it took."""
MOST_REST_SECONDS: Final = 0.5
SMALL_EVENT_BYTES: Final = 4_096
"""Bytes of an event that need no room. Small, because there can be as many events as subscriptions."""
SHARED_SECONDS: Final = 0.5
"""Time for which the answer to an event is kept for other subscribers. Slow ones keep no answers in memory."""
SHARED_BYTES: Final = 8 * 2**20
"""Bytes of the answers that are kept. The oldest are dropped first: most subscribers have them already."""


class EventAnswer:
    """The answer to an event, written as JSON. It holds room for its bytes as long as a subscriber refers to it."""

    def __init__(self, data: bytes | None, errors: list[GraphQLError] | None, room: Room) -> None:
        self.room, self.held = room, 0
        self.data = None if data is None else orjson.Fragment(data)
        self.errors = errors
        if data and len(data) > SMALL_EVENT_BYTES:
            room.take(len(data))
            self.held = len(data)

    def __del__(self) -> None:
        self.room.release(self.held)


class EventExecution(NamedTuple):
    """The execution of an event for one subscriber."""

    operation: Any
    execute: Callable[[], Any]
    """Executes the event; returns the result, or an awaitable of it."""
    write: Callable[[Any], EventAnswer]
    """Returns a result as an answer; raises LimitExceeded if it is too large, Overloaded if there is no room."""
    forget: Callable[[], None]
    """Drops what was read. Called at the end: the subscriber may be gone, or wait long for the next event."""


class Events:
    """The execution of the events of all subscriptions of a process."""

    def __init__(self) -> None:
        self.turn = asyncio.Semaphore(1)
        """Taken by an event that reads rows. Such events take a part of the process's time only."""
        self.reading: WeakSet[Any] = WeakSet()
        """Operations whose events read rows."""
        self.answers: dict[Hashable, asyncio.Future[EventAnswer]] = {}
        """Answers for subscribers with the same operation, by operation and event."""
        self.large: deque[tuple[Hashable, int]] = deque()
        """Keys of kept answers that hold room, oldest first, and their bytes."""
        self.large_bytes = 0

    async def answer(self, key: Hashable | None, execution: EventExecution) -> EventAnswer:
        """Return the answer to an event. Events with the same key have the same answer."""
        if key is None:
            return await self._executed(execution)
        known = self.answers.get(key)
        if known is None:
            known = asyncio.ensure_future(self._executed(execution))
            self._keep(key, known)
        return known.result() if known.done() else await asyncio.shield(known)

    def _keep(self, key: Hashable, answer: "asyncio.Future[EventAnswer]") -> None:
        def forget(answer: "asyncio.Future[EventAnswer]") -> None:
            if not answer.cancelled() and (error := answer.exception()):
                clear_frames(error.__traceback__)  # they hold what was read
            elif not answer.cancelled():
                self._limit(key, answer.result().held)
            asyncio.get_running_loop().call_later(SHARED_SECONDS, self._drop, key)

        self.answers[key] = answer
        answer.add_done_callback(forget)

    def _limit(self, key: Hashable, held: int) -> None:
        """Count the bytes of a kept answer, and drop the oldest answers if there are too many."""
        if held:
            self.large.append((key, held))
            self.large_bytes += held
        while self.large_bytes > SHARED_BYTES and len(self.large) > 1:
            self._drop(self.large[0][0])

    def _drop(self, key: Hashable) -> None:
        self.answers.pop(key, None)
        # Answers are dropped in the order in which they were counted.
        while self.large and self.large[0][0] not in self.answers:
            self.large_bytes -= self.large.popleft()[1]

    async def _executed(self, execution: EventExecution) -> EventAnswer:
        try:
            if execution.operation in self.reading:
                return await self._in_turn(execution)
            result = execution.execute()
            if optimized_is_awaitable(result):
                self.reading.add(execution.operation)
                result = await result
            return execution.write(result)
        finally:
            execution.forget()

    async def _in_turn(self, execution: EventExecution) -> EventAnswer:
        loop = asyncio.get_running_loop()
        await self.turn.acquire()
        began = loop.time()
        try:
            result = execution.execute()
            return execution.write(await result if optimized_is_awaitable(result) else result)
        finally:
            rest = min((loop.time() - began) * REST, MOST_REST_SECONDS)
            loop.call_later(rest, self.turn.release)


def written(result: Any, room: Room) -> EventAnswer:
    """Return a result as JSON. Raise Overloaded if there is no room for it."""
    return EventAnswer(None if result.data is None else dumped(result.data), result.errors, room)
