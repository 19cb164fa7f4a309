"""A client that costs next to nothing, so that what is measured is the server."""

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
    """One connection, on which one question is asked after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, url: str) -> "Client":
        """A connection to the server at a URL."""
        address = urlsplit(url)
        return cls(*await asyncio.open_connection(address.hostname, address.port, limit=2**22))

    async def post(self, request: bytes) -> bytes:
        """The body of the answer to a request."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        return await self.reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))

    async def ask(self, document: str, **variables: Any) -> Any:
        """The data of the answer to a document."""
        answer = orjson.loads(await self.post(request(document, **variables)))
        if answer.get("errors"):
            raise RuntimeError(answer["errors"])
        return answer["data"]

    def close(self) -> None:
        """End the connection."""
        self.writer.close()


def request(document: str, **variables: Any) -> bytes:
    """A request as it goes over the wire."""
    body = orjson.dumps({"query": document, "variables": variables})
    return HEAD % len(body) + body


async def again_and_again(url: str, asked: bytes, seconds: float, clients: int) -> list[float]:
    """Ask from several clients at once; how many seconds each answer took, in order."""
    taken: list[float] = []
    until = time.perf_counter() + seconds

    async def one() -> None:
        client = await Client.connect(url)
        while (began := time.perf_counter()) < until:
            answer = await client.post(asked)
            taken.append(time.perf_counter() - began)
            if b'"errors"' in answer[:200]:
                raise RuntimeError(answer[:500])
        client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return sorted(taken)


@contextmanager
def serving(database_url: str, **settings: str) -> Iterator[tuple[str, psutil.Process]]:
    """A server process on loopback, without services: where it is, and the process."""
    own = {"RUNSTATE_DATABASE_URL": database_url, "RUNSTATE_SERVICES": "off", "RUNSTATE_PORT": "0", **settings}
    command = [sys.executable, "-m", "runstate", "serve"]
    quiet = {**os.environ, "RUNSTATE_LOG_LEVEL": "warning", **own}
    server = subprocess.Popen(command, env=quiet, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout  # noqa: S101 it is piped
        address = next(found.group() for line in server.stdout if (found := re.search(r"http://\S+/graphql", line)))
        yield address, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()
