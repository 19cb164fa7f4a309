"""Events of subscriptions: executed once for all subscribers to the same, and not all the time."""

import asyncio
from collections.abc import Callable, Hashable
from typing import Any, Final, NamedTuple
from weakref import WeakSet

import orjson
from graphql import GraphQLError
from strawberry.execution.is_awaitable import optimized_is_awaitable

from runstate.graphql.types.scalars import dumped

REST: Final = 2
"""Rest after the execution of an event that reads rows, as a multiple of the time that it took."""
MOST_REST_SECONDS: Final = 0.5
SHARED_SECONDS: Final = 0.5
"""Time for which the answer to an event is kept for other subscribers. Slow ones keep no answers in memory."""


class EventAnswer(NamedTuple):
    """The answer to an event, written as JSON."""

    data: orjson.Fragment | None
    errors: list[GraphQLError] | None


class EventExecution(NamedTuple):
    """The execution of an event for one subscriber."""

    operation: Any
    execute: Callable[[], Any]
    """Executes the event; returns the result, or an awaitable of it."""
    write: Callable[[Any], EventAnswer]
    """Returns a result as an answer; raises LimitExceeded if it is too large."""
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
            if not answer.cancelled():
                answer.exception()  # all subscribers may be gone
            asyncio.get_running_loop().call_later(SHARED_SECONDS, self.answers.pop, key, None)

        self.answers[key] = answer
        answer.add_done_callback(forget)

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


def written(result: Any) -> EventAnswer:
    """Return a result as JSON."""
    return EventAnswer(None if result.data is None else orjson.Fragment(dumped(result.data)), result.errors)
