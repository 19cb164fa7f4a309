"""Connections that do as they like, and what they send."""

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import httpx

from tests.serving import Server

MEGABYTE = 2**20
PATIENCE_SECONDS = 30
GET = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POST = b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
UPGRADE = (
    b"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)

INIT = '{"type": "connection_init"}'


@dataclass(frozen=True, slots=True)
class Attacker:
    """A raw connection of a misbehaving client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes, seconds: float = 3) -> bool:
        """Send bytes; return whether the server read them in this time."""
        self.writer.write(data)
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(seconds):
                await self.writer.drain()
                return True
        return False

    async def answer(self) -> bytes:
        """Return all that the server sends until it closes the connection."""
        received = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while piece := await self.reader.read(MEGABYTE):
                    received += piece
        return received

    async def status(self) -> int:
        """Return the status of the only answer."""
        found = re.match(rb"HTTP/1.1 (\d+)", await self.answer())
        return int(found[1]) if found else 0


@asynccontextmanager
async def attackers(server: Server, number: int, receive_buffer: int | None = None) -> AsyncIterator[list[Attacker]]:
    """Yield connections to a server that read only when a test asks for it."""
    url = httpx.URL(server.url)
    async with AsyncExitStack() as opened:
        made = []
        for _ in range(number):
            connection = socket.socket()
            if receive_buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.setblocking(False)  # noqa: FBT003 its only argument
            await asyncio.get_running_loop().sock_connect(connection, (url.host, url.port))
            reader, writer = await asyncio.open_connection(sock=connection, limit=2**16)
            opened.callback(writer.transport.abort)
            made.append(Attacker(reader, writer))
        yield made


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """Return a WebSocket frame of a client, with a mask of zeros."""
    size = len(payload)
    length = (
        bytes([0x80 | size])
        if size < 126
        else (b"\xfe" + struct.pack("!H", size) if size < 2**16 else b"\xff" + struct.pack("!Q", size))
    )
    return bytes([opcode | (0x80 if final else 0)]) + length + bytes(4) + payload
