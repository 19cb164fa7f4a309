"""Several processes that serve on one address: each has its place taken by another when it ends."""

import asyncio
import multiprocessing
import os
import signal
import socket
import tempfile
from contextlib import closing
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any, Final

import structlog
import uvicorn
from prometheus_client.multiprocess import mark_process_dead

from runstate import logs
from runstate.errors import ConfigurationError
from runstate.metrics import SHARED
from runstate.server import Server, print_address
from runstate.settings import Settings

LOOK_SECONDS: Final = 0.5
BACKLOG: Final = 2048

log = structlog.get_logger(__name__)


class Workers:
    """Starts processes, starts them again when they end, and ends with them when it is asked to."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopping = False
        self.failed = False
        self.processes: list[SpawnProcess] = []

    def run(self) -> bool:
        """Serve until asked to stop; whether that went well: false if a worker could not even start."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        with closing(listening(self.settings)) as sock, tempfile.TemporaryDirectory(prefix="runstate-") as shared:
            os.environ[SHARED] = shared
            self.processes = [self._started(sock) for _ in range(self.settings.workers)]
            print_address(self.settings, sock.getsockname()[1])
            while not self.stopping:
                wait([each.sentinel for each in self.processes], LOOK_SECONDS)
                self._replace(sock)
            self._end()
        return not self.failed

    def _stop(self, *_: Any) -> None:
        self.stopping = True

    def _started(self, sock: socket.socket) -> SpawnProcess:
        process = multiprocessing.get_context("spawn").Process(target=work, args=(self.settings, sock))
        process.start()
        return process

    def _replace(self, sock: socket.socket) -> None:
        """Start those again that have ended; one that could not start would not start the next time either."""
        for place, process in enumerate(self.processes):
            if process.is_alive() or self.stopping:
                continue
            mark_process_dead(process.pid, os.environ[SHARED])  # type: ignore[no-untyped-call]
            if process.exitcode == uvicorn.config.STARTUP_FAILURE:
                self.stopping = self.failed = True
            else:
                log.warning("worker_ended", pid=process.pid, exit_code=process.exitcode)
                self.processes[place] = self._started(sock)

    def _end(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join()


class Worker(Server):
    """One of the processes. It does not outlive the one that started it."""

    async def startup(self, sockets: Any = None) -> None:
        """Start, and watch over who started it."""
        if parent := multiprocessing.parent_process():
            asyncio.get_running_loop().add_reader(parent.sentinel, self._orphaned, parent.sentinel)
        await super().startup(sockets)

    def _orphaned(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        self.should_exit = True


def work(settings: Settings, sock: socket.socket) -> None:
    """What a process does."""
    logs.configure(settings.log_level, settings.log_format)
    Worker(settings).run(sockets=[sock])


def listening(settings: Settings) -> socket.socket:
    """A socket that connections wait at, until a worker takes them; Misconfigured: nobody may listen there."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"Nobody can listen on {settings.host}, port {settings.port}: {error.strerror}."
        ) from None
