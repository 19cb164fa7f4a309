"""The code of a run while it executes: how it is interrupted, and which run is the current one."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from runstate.client.errors import Cancelled

if TYPE_CHECKING:
    from runstate.client.proposals import ReportedRun

CURRENT: Final[ContextVar[ReportedRun | None]] = ContextVar("runstate_run", default=None)
"""The run whose code is executing."""


class Terminated(SystemExit):
    """The process received SIGTERM."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Body:
    """Code in a thread, or in a task of an event loop."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.is_main = threading.current_thread() is threading.main_thread()
        self.task: asyncio.Task[Any] | None = None
        self.active = True
        self.handles_signal = False
        try:
            self.loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
            self.task = asyncio.current_task()
        except RuntimeError:
            self.loop = None

    def interrupt(self, *, by_signal: bool) -> None:
        """Raise Cancelled in the code; CancelledError in a task."""
        if self.loop and self.task:
            # Tasks may be cancelled in the thread of their loop only.
            self.loop.call_soon_threadsafe(self.task.cancel)
        elif by_signal:
            # A signal also ends a sleep.
            signal.pthread_kill(self.thread, signal.SIGTERM)
        else:
            # Python has no other way into a thread. It is raised at the next bytecode, so not during a blocking call.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), ctypes.py_object(Cancelled))

    def forget_interrupt(self) -> None:
        """Withdraw an exception that was not raised in time."""
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), None)


class Bodies:
    """The code of a flow run and its task runs that executes now."""

    def __init__(self, parent: Bodies | None = None) -> None:
        self.parent = parent
        # One lock for a flow run and its subflow runs.
        self.lock: threading.Lock = parent.lock if parent else threading.Lock()
        self.active: list[Body] = []
        self.is_cancelled = False

    @property
    def interrupted(self) -> bool:
        """Whether the flow run, or one around it, was cancelled."""
        return self.is_cancelled or (self.parent is not None and self.parent.interrupted)

    def interrupt(self) -> None:
        """Interrupt everything, each thread once."""
        with self.lock:
            if self.is_cancelled:
                return
            self.is_cancelled = True
            # The innermost code of a thread is the last one.
            for body in {(each.thread, each.task): each for each in self.active if each.active}.values():
                # The outermost code of the main thread handles the signal.
                handled = any(each.handles_signal and each.thread == body.thread for each in self.active)
                body.interrupt(by_signal=handled)

    def chain(self) -> Iterator[Bodies]:
        """Yield these bodies and those around them."""
        yield self
        if self.parent:
            yield from self.parent.chain()

    @contextmanager
    def executing(self, run: ReportedRun) -> Iterator[None]:
        """Make a run the current one, and its code interruptible."""
        body, token = Body(), CURRENT.set(run)
        previous = self._handle_signal(body)
        with self.lock:
            for bodies in self.chain():
                bodies.active.append(body)
        try:
            yield
        finally:
            body.active = False
            with self.lock:
                for bodies in self.chain():
                    bodies.active.remove(body)
                # Otherwise the exception would be raised later, in code that has nothing to do with the run.
                if self.interrupted and not body.task and not body.handles_signal:
                    body.forget_interrupt()
            if body.handles_signal:
                signal.signal(signal.SIGTERM, previous)
            # A block can end in another context than that in which it began, such as in a generator.
            with suppress(ValueError):
                CURRENT.reset(token)

    def _handle_signal(self, body: Body) -> Any:
        """Handle SIGTERM while the main thread executes code, unless the program handles it."""
        # Python permits handlers of signals in the main thread only.
        if not body.is_main or body.task or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return None
        body.handles_signal = True
        return signal.signal(signal.SIGTERM, self._terminated)

    def _terminated(self, _: int, __: FrameType | None) -> None:
        if self.interrupted and not any(each.active for each in self.active):
            return
        raise Cancelled if self.interrupted else Terminated
