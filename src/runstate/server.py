"""The server process: uvicorn, adapted to this application."""

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
"""Number of calls of `on_tick` per second; uvicorn fixes it."""


class Server(uvicorn.Server):
    """Uvicorn server that prints its URL when it has started, and exits with code 0 on SIGINT and SIGTERM."""

    announces: ClassVar[bool] = True
    """Whether it prints its URL."""

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
                ws_max_size=2
                * settings.max_body_bytes,  # a message above the limit is answered with an error, not closed
                ws_ping_timeout=settings.slow_subscriber_timeout_seconds
                + 60,  # a slow subscriber gets SLOW_CONSUMER first
                ws_per_message_deflate=False,
                # `logs.configure` has set up the loggers of uvicorn, too.
                log_config=None,
                # Operations have log lines of their own.
                access_log=False,
                # Uvicorn would believe `X-Forwarded-For` of every process on this machine: the allowlist trusts only
                # the proxies that the settings name.
                proxy_headers=False,
                timeout_graceful_shutdown=20,  # bounds the wait for clients that do not read
            )
        )
        self.settings = settings

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM; a second signal skips the wait for running requests."""
        # Uvicorn's own method raises the signal again at the end, so the exit code would not be 0.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Start, and print the URL."""
        await super().startup(sockets=sockets)  # type: ignore[arg-type]
        if self.started:
            # After the start, when the objects of the application exist and can be frozen.
            self.collector = Collector(asyncio.get_running_loop().time())
            self._set_tcp_user_timeout()
            if self.announces:
                print_address(self.settings, self.servers[0].sockets[0].getsockname()[1])

    async def on_tick(self, counter: int) -> bool:
        """Check the timeouts of connections and collect garbage once a second."""
        now = self.guard.now = asyncio.get_running_loop().time()
        if counter % TICKS_PER_SECOND == 0:
            self.guard.sweep(now, self.server_state.connections)
            self.collector.tick(now, is_quiet=not self.server_state.tasks)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Report `draining`, deliver committed transitions to subscribers, then close all connections."""
        self.app.state.health.draining = True
        await self._drain()
        # No new connections from here on; open ones are still served.
        for server in self.servers:
            server.close()
        # Before uvicorn waits for connections: streams end only when the feed does.
        if feed := getattr(self.app.state, "feed", None):
            await feed.transitions.stop()
        await super().shutdown(sockets=sockets)  # type: ignore[arg-type]

    async def _drain(self) -> None:
        """Continue to serve until proxies have noticed; a second signal skips this."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.settings.shutdown_drain_seconds
        while loop.time() < until and not self.force_exit:  # noqa: ASYNC110 uvicorn sets a flag
            await asyncio.sleep(min(0.1, self.settings.shutdown_drain_seconds))

    def _set_tcp_user_timeout(self) -> None:
        """Set a kernel timeout for unacknowledged data: streams that only send do not notice a dead client."""
        # Longer than the timeout of subscriptions, so that a slow subscriber first receives SLOW_CONSUMER.
        milliseconds = round(self.settings.slow_subscriber_timeout_seconds * 1000) + 60_000
        if sys.platform == "linux":
            for listener in (each for server in self.servers for each in server.sockets):
                # Accepted connections inherit the option.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def print_address(settings: Settings, port: int) -> None:
    """Print the URL of the server and of its database."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    typer.echo(f"runstate listens on http://{host}:{port}/graphql")
    typer.echo(f"Database: {parse(settings.database_url).shown}")
