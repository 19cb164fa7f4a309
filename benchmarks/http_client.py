"""An HTTP client with little overhead, and the server process that it measures."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import orjson
import psutil

HEAD = b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Client:
    """One connection that sends one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, url: str) -> "Client":
        """Open a connection to the server at a URL."""
        address = urlsplit(url)
        return cls(*await asyncio.open_connection(address.hostname, address.port, limit=2**22))

    async def post(self, request: bytes) -> bytes:
        """Send a request and return the body of the response."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        return await self.reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))

    async def execute(self, document: str, **variables: Any) -> Any:
        """Execute a document and return its data. Raise RuntimeError if it has errors."""
        answer = orjson.loads(await self.post(request(document, **variables)))
        if answer.get("errors"):
            raise RuntimeError(answer["errors"])
        return answer["data"]

    def close(self) -> None:
        """Close the connection."""
        self.writer.close()


def request(document: str, **variables: Any) -> bytes:
    """Return the bytes of an HTTP request that executes a document."""
    body = orjson.dumps({"query": document, "variables": variables})
    return HEAD % len(body) + body


async def repeat(url: str, sent: bytes, seconds: float, clients: int) -> list[float]:
    """Send a request repeatedly from several clients at once. Return the latencies in seconds, sorted."""
    taken: list[float] = []
    until = time.perf_counter() + seconds

    async def one() -> None:
        client = await Client.connect(url)
        while (began := time.perf_counter()) < until:
            answer = await client.post(sent)
            taken.append(time.perf_counter() - began)
            if b'"errors"' in answer[:200]:
                raise RuntimeError(answer[:500])
        client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return sorted(taken)


@contextmanager
def serving(database_url: str, python: str = sys.executable, **settings: str) -> Iterator[tuple[str, psutil.Process]]:
    """Start a server process on loopback without services. Yield its URL and the process."""
    own = {"RUNSTATE_DATABASE_URL": database_url, "RUNSTATE_SERVICES": "off", "RUNSTATE_PORT": "0", **settings}
    command = [python, "-m", "runstate", "serve"]
    quiet = {**os.environ, "RUNSTATE_LOG_LEVEL": "warning", **own}
    server = subprocess.Popen(command, env=quiet, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout  # noqa: S101 it is piped
        address = next(found.group() for line in server.stdout if (found := re.search(r"http://\S+/graphql", line)))
        yield address, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()
