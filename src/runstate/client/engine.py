"""A thread with an event loop in which a client does its work, for callers with and without a loop of their own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar


class Closing(Protocol):
    """Work that can be closed."""

    async def close(self) -> None:
        """Finish the work."""


W = TypeVar("W", bound=Closing)
T = TypeVar("T")
Job = Callable[[W], Coroutine[object, object, T]]
"""A coroutine function that gets what works in the thread."""


class Engine(Generic[W]):
    """Runs jobs in a thread of its own, which starts with the first one and again after a fork."""

    def __init__(self, make: Callable[[], W]) -> None:
        self.make = make
        self.process = os.getpid()
        self.lock = threading.Lock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None
        self.worker: W | None = None
        self.inherited = list[object]()

    def submit(self, job: Job[W, T]) -> Future[T]:
        """Start a job; return its future."""
        if self.process != os.getpid():
            # Threads do not survive a fork: the child works with a thread and connections of its own.
            self._forget()
        with self.lock:
            if self.loop is None:
                self._start()
        assert self.loop is not None  # noqa: S101 - for mypy
        return asyncio.run_coroutine_threadsafe(self._do(job), self.loop)

    def wait(self, job: Job[W, T]) -> T:
        """Do a job and return its result."""
        return self.submit(job).result()

    async def join(self, job: Job[W, T]) -> T:
        """Do a job and return its result, without blocking the caller's loop."""
        return await asyncio.wrap_future(self.submit(job))

    def iterate(self, make: Callable[[W], AsyncIterator[T]]) -> Iterator[T]:
        """Yield the items of an asynchronous iterator that runs in the thread."""
        items: list[AsyncIterator[T]] = []
        try:
            while (item := self.wait(lambda worker: _next(items, worker, make))) is not None:
                yield item[0]
        finally:
            self.wait(lambda _: _drop(items))

    async def aiterate(self, make: Callable[[W], AsyncIterator[T]]) -> AsyncGenerator[T, None]:
        """Yield the items of an asynchronous iterator that runs in the thread."""
        items: list[AsyncIterator[T]] = []
        try:
            while (item := await self.join(lambda worker: _next(items, worker, make))) is not None:
                yield item[0]
        finally:
            await self.join(lambda _: _drop(items))

    def stop(self) -> None:
        """Close the work and end the thread. A later job starts another one."""
        if self.process != os.getpid() or self.loop is None or self.thread is None:
            return
        try:
            self.wait(_close)
        finally:
            with self.lock:
                self.loop.call_soon_threadsafe(self.loop.stop)
                self.thread.join()
                self.loop.close()
                self.loop = self.thread = self.worker = None

    def _forget(self) -> None:
        self.process = os.getpid()
        self.lock = threading.Lock()
        # The loop of the parent shares its sockets: it must not be closed here, not even by the garbage collector.
        self.inherited.append((self.loop, self.worker))
        self.loop = self.thread = self.worker = None

    def _start(self) -> None:
        self.loop = loop = asyncio.new_event_loop()
        self.thread = thread = threading.Thread(target=loop.run_forever, name="runstate-client", daemon=True)
        thread.start()

    async def _do(self, job: Job[W, T]) -> T:
        if self.worker is None:
            self.worker = self.make()
        return await job(self.worker)


async def _close(worker: Closing) -> None:
    """Close the work, and end what is still running in the loop, such as subscriptions."""
    try:
        await worker.close()
    finally:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _next(items: list[AsyncIterator[T]], worker: W, make: Callable[[W], AsyncIterator[T]]) -> tuple[T] | None:
    if not items:
        items.append(make(worker))
    try:
        return (await anext(items[0]),)
    except StopAsyncIteration:
        return None


async def _drop(items: list[AsyncIterator[T]]) -> None:
    for each in items:
        if isinstance(each, AsyncGenerator):
            await each.aclose()
