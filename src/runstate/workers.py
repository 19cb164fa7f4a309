"""Several worker processes that serve on the same sockets; a worker that exits or hangs is replaced."""

import asyncio
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from multiprocessing.connection import wait
from typing import Any, Final

import structlog
import uvicorn
from prometheus_client.multiprocess import mark_process_dead

from runstate import logs
from runstate.listeners import BACKLOG
from runstate.metrics import SHARED
from runstate.server import Server, print_address
from runstate.settings import Settings

LOOK_SECONDS: Final = 0.5
"""Seconds after which the parent checks again whether it has to stop."""
BEAT_SECONDS: Final = 0.5
"""Seconds between two heartbeats of a worker."""
LOADING_SECONDS: Final = 120.0
"""Seconds in which a process has to load the program."""
GRACE_SECONDS: Final = 30.0
"""Seconds after the drain time in which a worker has to exit."""
KILL_SECONDS: Final = 5.0
"""Seconds in which the operating system ends a killed process."""

log = structlog.get_logger(__name__)


class Place:
    """One worker of several, and the process that does its work now."""

    def __init__(self, settings: Settings, listeners: list[socket.socket]) -> None:
        self.settings = settings
        self.listeners = listeners
        self.start()

    def start(self) -> None:
        """Start a process."""
        # Not `fork`: a child would inherit the threads and connections of the parent in an unknown state.
        context = multiprocessing.get_context("spawn")
        # Without a lock: a process that hangs could hold it.
        self.beats = context.RawValue("L", 0)
        """Number of heartbeats of the process."""
        self.seen = 0
        """Number of heartbeats at the last look."""
        self.silent_seconds = 0.0
        """Seconds without a new heartbeat."""
        self.process = context.Process(target=work, args=(self.settings, self.listeners, self.beats))
        self.process.start()

    def look(self, seconds: float) -> None:
        """Look for a new heartbeat, *seconds* after the last look."""
        beats = self.beats.value
        self.silent_seconds = self.silent_seconds + seconds if beats == self.seen else 0
        self.seen = beats

    @property
    def is_hung(self) -> bool:
        """Whether the process has sent no heartbeat for too long. It sends the first one before it starts to serve."""
        limit = self.settings.worker_timeout_seconds
        return self.silent_seconds > (limit if self.seen else max(limit, LOADING_SECONDS))

    def kill(self, reason: str) -> None:
        """End the process at once."""
        log.error(reason, pid=self.process.pid)
        # SIGKILL, because a process that hangs handles no other signal.
        self.process.kill()
        self.process.join(KILL_SECONDS)


class Workers:
    """The parent process: starts workers, replaces those that exit or hang, and stops all of them on a signal."""

    def __init__(self, settings: Settings, listeners: list[socket.socket]) -> None:
        self.settings = settings
        self.listeners = listeners
        self.stopping = False
        self.failed = False
        self.places: list[Place] = []

    def run(self) -> bool:
        """Serve until a signal arrives; return False if a worker could not start."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        # Clients that connect while workers start wait in this queue.
        for listener in self.listeners:
            listener.listen(BACKLOG)
        with tempfile.TemporaryDirectory(prefix="runstate-") as shared:
            # Before the workers start: prometheus_client reads the variable when it is imported.
            os.environ[SHARED] = shared
            self.places = [Place(self.settings, self.listeners) for _ in range(self.settings.workers)]
            print_address(self.settings, self.listeners[0].getsockname()[1])
            while not self.stopping:
                self._look()
                self._replace()
            self._end()
        return not self.failed

    def _stop(self, *_: Any) -> None:
        self.stopping = True

    def _look(self) -> None:
        """Wait for the exit of a worker, for half a second at most, and kill those that hang."""
        began = time.monotonic()
        wait([each.process.sentinel for each in self.places if each.process.is_alive()], LOOK_SECONDS)
        passed = min(time.monotonic() - began, LOOK_SECONDS)  # more: the machine stood still, and the workers with it
        for place in self.places:
            place.look(passed)
            if place.is_hung and place.process.is_alive():
                place.kill("worker_hung")

    def _replace(self) -> None:
        """Replace workers that have exited. Stop if one could not start, because its replacement would fail too."""
        for place in self.places:
            process = place.process
            if process.is_alive() or self.stopping:
                continue
            # Removes the gauges of the worker from the shared metrics.
            mark_process_dead(process.pid, os.environ[SHARED])  # type: ignore[no-untyped-call]
            if process.exitcode == uvicorn.config.STARTUP_FAILURE:
                self.stopping = self.failed = True
            else:
                log.warning("worker_ended", pid=process.pid, exit_code=process.exitcode)
                place.start()

    def _end(self) -> None:
        """Stop all workers, and kill those that hang or exceed the grace period."""
        until = time.monotonic() + self.settings.shutdown_drain_seconds + GRACE_SECONDS
        for place in self.places:
            place.process.terminate()
        while (alive := [each for each in self.places if each.process.is_alive()]) and time.monotonic() < until:
            self._look()
        for place in alive:
            place.kill("worker_killed")


class Worker(Server):
    """A worker process. It exits when its parent does."""

    # The parent has printed the URL.
    announces = False

    def __init__(self, settings: Settings, beats: Any) -> None:
        super().__init__(settings)
        self.beats = beats
        """Number of heartbeats, in memory that the parent process shares."""

    async def startup(self, sockets: Any = None) -> None:
        """Start, send heartbeats, and watch the parent process."""
        self.beating = asyncio.create_task(self._beat())
        # The sentinel becomes readable when the parent ends, even if it was killed.
        if parent := multiprocessing.parent_process():
            asyncio.get_running_loop().add_reader(parent.sentinel, self._orphaned, parent.sentinel)
        await super().startup(sockets)

    async def _beat(self) -> None:
        while True:
            self.beats.value += 1
            await asyncio.sleep(BEAT_SECONDS)

    def _orphaned(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        self.should_exit = True


def work(settings: Settings, listeners: list[socket.socket], beats: Any) -> None:
    """Serve as a worker process."""
    # A spawned process does not inherit the configuration of logging.
    logs.configure(settings.log_level, settings.log_format)
    Worker(settings, beats).run(sockets=listeners)
