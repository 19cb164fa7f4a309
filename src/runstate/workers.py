"""Several worker processes that serve on the same sockets; a worker that exits is replaced."""

import asyncio
import multiprocessing
import os
import signal
import socket
import tempfile
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
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

log = structlog.get_logger(__name__)


class Workers:
    """The parent process: starts workers, replaces those that exit, and stops all of them on a signal."""

    def __init__(self, settings: Settings, listeners: list[socket.socket]) -> None:
        self.settings = settings
        self.listeners = listeners
        self.stopping = False
        self.failed = False
        self.processes: list[SpawnProcess] = []

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
            self.processes = [self._started() for _ in range(self.settings.workers)]
            print_address(self.settings, self.listeners[0].getsockname()[1])
            while not self.stopping:
                wait([each.sentinel for each in self.processes], LOOK_SECONDS)
                self._replace()
            self._end()
        return not self.failed

    def _stop(self, *_: Any) -> None:
        self.stopping = True

    def _started(self) -> SpawnProcess:
        # A forked worker would inherit the threads' locks and the event loop's state.
        process = multiprocessing.get_context("spawn").Process(target=work, args=(self.settings, self.listeners))
        process.start()
        return process

    def _replace(self) -> None:
        """Replace workers that have exited. Stop if one could not start, because its replacement would fail too."""
        for place, process in enumerate(self.processes):
            if process.is_alive() or self.stopping:
                continue
            # Removes the gauges of the worker from the shared metrics.
            mark_process_dead(process.pid, os.environ[SHARED])  # type: ignore[no-untyped-call]
            if process.exitcode == uvicorn.config.STARTUP_FAILURE:
                self.stopping = self.failed = True
            else:
                log.warning("worker_ended", pid=process.pid, exit_code=process.exitcode)
                self.processes[place] = self._started()

    def _end(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join()


class Worker(Server):
    """A worker process. It exits when its parent does."""

    # The parent has printed the URL.
    announces = False

    async def startup(self, sockets: Any = None) -> None:
        """Start, and watch the parent process."""
        # The sentinel becomes readable when the parent ends, even if it was killed.
        if parent := multiprocessing.parent_process():
            asyncio.get_running_loop().add_reader(parent.sentinel, self._orphaned, parent.sentinel)
        await super().startup(sockets)

    def _orphaned(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        self.should_exit = True


def work(settings: Settings, listeners: list[socket.socket]) -> None:
    """Serve as a worker process."""
    # A spawned process does not inherit the configuration of logging.
    logs.configure(settings.log_level, settings.log_format)
    Worker(settings).run(sockets=listeners)
