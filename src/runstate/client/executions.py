"""The execution of a run: it proposes states, honours each verdict, and repeats its code as the rules say."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar

from runstate.client.errors import Cancelled
from runstate.client.proposals import CANCELLED, Outcome, ReportedRun
from runstate.client.reporter import Reporter
from runstate.client.states import State

R = TypeVar("R", bound="Execution")
P = ParamSpec("P")
T = TypeVar("T")
Job = Callable[[Reporter], Coroutine[Any, Any, Any]]

LEFT: Final = (KeyboardInterrupt, SystemExit, Cancelled, asyncio.CancelledError)
"""Exceptions that leave the code between two steps of a run."""


class Code:
    """The step at which the code of a run is executed."""


CODE: Final = Code()
Steps = Generator[Job | Code, Any, Any]


class Execution(ReportedRun):
    """A run whose code executes in this process. A context manager, for `with` and `async with`; or see `run`, `arun`.

    The code of a `with` block cannot be repeated: `attempts`, `run` and `arun` retry it.
    """

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Execute a function as the run, again after each failure with a retry left; return its value.

        If the run has completed already, or its result is cached, return that value without a call. Raise the
        exception of the last attempt, AbortedError if a rule forbids the run, Cancelled, PausedRun if it leaves.
        """
        steps = self._steps()
        given = None
        try:
            while True:
                step = steps.send(given)
                given = self._call(function, args, kwargs) if isinstance(step, Code) else self.engine.wait(step)
        except StopIteration as end:
            result: T = end.value
            return result
        except BaseException as error:
            self._give_up(error)
            raise

    async def arun(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Execute a coroutine function as the run, as `run` does."""
        steps = self._steps()
        given = None
        try:
            while True:
                step = steps.send(given)
                if isinstance(step, Code):
                    given = await self._acall(function, args, kwargs)
                else:
                    given = await self.engine.join(step)
        except StopIteration as end:
            result: T = end.value
            return result
        except BaseException as error:
            await asyncio.to_thread(self._give_up, error)
            raise

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return a function that executes another one as the run."""

        @functools.wraps(function)
        def execute(*args: P.args, **kwargs: P.kwargs) -> T:
            return self.run(function, *args, **kwargs)

        return execute

    def attempts(self) -> Iterator[Attempt[Self]]:
        """Yield a context manager for each attempt: `for attempt in run.attempts():`, `with attempt:` and the code."""
        while not self.ended:
            yield Attempt(self)

    async def aattempts(self) -> AsyncIterator[Attempt[Self]]:
        """Yield an asynchronous context manager for each attempt."""
        while not self.ended:
            yield Attempt(self)

    def __enter__(self) -> Self:
        try:
            self.engine.wait(self._enter)
        except BaseException as error:
            self._give_up(error)
            raise
        return self._enter_block()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        outcome = self.leave_block(error, self.settle)
        self.engine.wait(partial(self.finish, outcome=outcome, repeatable=False))
        if outcome.error is not error:
            raise outcome.get() from error

    async def __aenter__(self) -> Self:
        await self.engine.join(self._enter)
        return self._enter_block()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.asettle()
        outcome = self.leave_block(error)
        await self.engine.join(partial(self.finish, outcome=outcome, repeatable=False))
        if outcome.error is not error:
            raise outcome.get() from error

    def _steps(self) -> Steps:
        yield self.create
        while True:
            state: State = yield self._begin
            if state.is_final():
                self.ended = True
                return (yield partial(self._kept, state=state))
            outcome: Outcome = yield CODE
            yield partial(self.finish, outcome=outcome)
            if self.ended:
                return outcome.get()

    def _call(self, function: Callable[..., T], args: Any, kwargs: Any) -> Outcome:
        try:
            with self.executing():
                value = function(*args, **kwargs)
                self.settle()
                return Outcome(value)
        # Whatever ends the code ends the run.
        except BaseException as error:  # noqa: BLE001
            return Outcome(error=self._as_cancelled(error))

    async def _acall(self, function: Callable[..., Awaitable[T]], args: Any, kwargs: Any) -> Outcome:
        try:
            with self.executing():
                value = await function(*args, **kwargs)
                await self.asettle()
                return Outcome(value)
        except BaseException as error:  # noqa: BLE001
            return Outcome(error=self._as_cancelled(error))

    @contextmanager
    def executing(self) -> Iterator[None]:
        """Make the run the current one."""
        with self.bodies.executing(self):
            yield

    def _enter_block(self) -> Self:
        self._block = self.executing()
        self._block.__enter__()
        return self

    def leave_block(self, error: BaseException | None, settle: Callable[[], None] = lambda: None) -> Outcome:
        """End a block when what it has started has ended, and return its outcome."""
        try:
            settle()
        # Such as Ctrl-C during this.
        except BaseException as late:  # noqa: BLE001
            error = late
        self._block.__exit__(None, None, None)
        return Outcome(self.value, self._as_cancelled(error))

    def _as_cancelled(self, error: Any) -> Any:
        """Return the exception that ended the code: Cancelled if the task was cancelled because the run was."""
        if isinstance(error, asyncio.CancelledError) and self.bodies.interrupted:
            return Cancelled(CANCELLED)
        return error

    def _give_up(self, error: BaseException) -> None:
        """Report that the code was left between two steps, such as by Ctrl-C while it waits."""
        if self.id and not self.ended and isinstance(error, LEFT):
            self.engine.wait(partial(self.finish, outcome=Outcome(error=error), repeatable=False))


class Attempt(Generic[R]):
    """An attempt of a run, as a context manager. Its exception is kept if the run is retried."""

    def __init__(self, run: R) -> None:
        self.execution = run

    def __enter__(self) -> R:
        return self.execution.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        run = self.execution
        outcome = run.leave_block(error, run.settle)
        run.engine.wait(partial(run.finish, outcome=outcome))
        return self._is_over(outcome, error)

    async def __aenter__(self) -> R:
        return await self.execution.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        run = self.execution
        await run.asettle()
        outcome = run.leave_block(error)
        await run.engine.join(partial(run.finish, outcome=outcome))
        return self._is_over(outcome, error)

    def _is_over(self, outcome: Outcome, error: BaseException | None) -> bool:
        """Return whether the exception is kept because another attempt follows."""
        if outcome.error is not error:
            raise outcome.get() from error
        return not self.execution.ended
