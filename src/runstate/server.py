"""The server as a process: uvicorn, as this application needs it."""

import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Final

import typer
import uvicorn

from runstate.app import build_app
from runstate.collecting import Collector
from runstate.connections import Connections, limits_of
from runstate.database.address import parse
from runstate.protocols import Config
from runstate.settings import Settings

TICKS_PER_SECOND: Final = 10
"""How often uvicorn calls `on_tick` in a second."""


class Server(uvicorn.Server):
    """Uvicorn that ends with exit code 0 when it is asked to stop, and says where to look when it has started."""

    announces: ClassVar[bool] = True
    """Whether it prints where it listens."""

    def __init__(self, settings: Settings) -> None:
        self.app = build_app(settings)
        self.guard = Connections(limits_of(settings))
        super().__init__(
            Config(
                self.app,
                self.guard,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                ws_max_size=2 * settings.max_body_bytes,  # so that a message too large is an error of its operation
                ws_ping_timeout=settings.slow_subscriber_timeout_seconds + 60,  # who is slow is told so, not cut off
                ws_per_message_deflate=False,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=20,  # for a client that does not take its answer
            )
        )
        self.settings = settings

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM; the second one does not wait."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Start, and say where to look."""
        await super().startup(sockets=sockets)  # type: ignore[arg-type]
        if self.started:
            self.collector = Collector(asyncio.get_running_loop().time())
            self._set_tcp_user_timeout()
            if self.announces:
                print_address(self.settings, self.servers[0].sockets[0].getsockname()[1])

    async def on_tick(self, counter: int) -> bool:
        """Look at the connections and at the memory once a second."""
        now = self.guard.now = asyncio.get_running_loop().time()
        if counter % TICKS_PER_SECOND == 0:
            self.guard.sweep(now, self.server_state.connections)
            self.collector.tick(now, is_quiet=not self.server_state.tasks)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Say that clients should go elsewhere, tell subscribers what was committed, then close every connection."""
        self.app.state.health.draining = True
        await self._drain()
        for server in self.servers:
            server.close()
        if feed := getattr(self.app.state, "feed", None):
            await feed.transitions.stop()
        await super().shutdown(sockets=sockets)  # type: ignore[arg-type]

    async def _drain(self) -> None:
        """Go on for as long as proxies take to notice; being asked to stop once more ends that."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.settings.shutdown_drain_seconds
        while loop.time() < until and not self.force_exit:  # noqa: ASYNC110 uvicorn sets a flag
            await asyncio.sleep(min(0.1, self.settings.shutdown_drain_seconds))

    def _set_tcp_user_timeout(self) -> None:
        """Have connections ended whose other side takes nothing for long: neither WebSockets nor events notice it."""
        milliseconds = round(self.settings.slow_subscriber_timeout_seconds * 1000) + 60_000
        if sys.platform == "linux":
            for listener in (each for server in self.servers for each in server.sockets):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def print_address(settings: Settings, port: int) -> None:
    """Print where the server listens, and where it keeps its data."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    typer.echo(f"runstate listens on http://{host}:{port}/graphql")
    typer.echo(f"It keeps its data in {parse(settings.database_url).shown}")
