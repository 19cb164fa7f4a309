"""Uvicorn's protocol for WebSockets with limits on time and memory."""

import asyncio
from functools import partial
from typing import Any, Final, cast

from typing_extensions import override
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode

from runstate.connections import UNREAD_SECONDS, Connections, Unread, client_of

SOCKET_SLICE: Final = 4_096
"""Number of bytes from a WebSocket that are parsed at a time."""
FRAGMENTS: Final = 1_000
"""Maximum number of frames of a message."""
EMPTY: Final = memoryview(b"")


class SocketProtocol(WebSocketsSansIOProtocol):
    """WebSocket with limits: the next message is parsed when the application has received the previous ones."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.guard: Connections = cast("Any", self.config).guard
        self.sender = client_of(transport)
        self.unread = Unread(self.guard.now)
        self.pending = EMPTY
        self.holds_pongs = False
        """Whether the application answers pings."""
        self.held = 0
        """Size of the incomplete message in bytes."""

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.pending = EMPTY
        self.guard.leave(self.sender)
        self.guard.buffer(-self.held)
        super().connection_lost(exc)

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        # A client that does not read answers may not send further requests.
        self.transport.pause_reading()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        self.proceed()

    @override
    def data_received(self, data: bytes) -> None:
        self.pending = memoryview(bytes(self.pending) + data if self.pending else data)
        self.proceed()

    def proceed(self) -> None:
        """Parse messages while the application receives them and the client reads the answers."""
        while self.pending and self.takes_more:
            piece, self.pending = self.pending[:SOCKET_SLICE], self.pending[SOCKET_SLICE:]
            super().data_received(bytes(piece))
            self._count()
        if not self.transport.is_closing():
            (self.transport.resume_reading if self.takes_more else self.transport.pause_reading)()

    @property
    def takes_more(self) -> bool:
        """Whether the next message may be parsed."""
        return not self.read_paused and self.writable.is_set() and not self.transport.is_closing()

    @override
    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            cast("Any", self.scope)["extensions"]["runstate.hold_pongs"] = self.hold_pongs

    def hold_pongs(self) -> None:
        """Leave the answers to pings to the application, which gets them in the order of the messages."""
        self.holds_pongs = True

    @override
    def handle_ping(self) -> None:
        if not self.holds_pongs:
            super().handle_ping()
            return
        pong = b"".join(self.conn.data_to_send())
        message: Any = {"type": "websocket.receive", "pong": partial(self._write_pong, pong)}
        self.queue.put_nowait(message)
        # As after a message: otherwise pings could fill the memory while the application is busy.
        self.read_paused = True

    def _write_pong(self, pong: bytes) -> None:
        if not self.transport.is_closing() and not self.close_sent:
            self.transport.write(pong)

    @override
    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text":
            data = b"".join(self.frames)
            # Uvicorn would log a traceback for each such message, which any client can send.
            try:
                data.decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(CloseCode.INVALID_DATA, "A text message is not valid UTF-8")
                self.handle_parser_exception()
                return
            self.frames = [data]
        super().send_receive_event_to_app()

    def _count(self) -> None:
        # websockets limits each message, but not all incomplete messages together.
        held = len(self.conn.reader.buffer) + (self.conn.current_size or 0)
        self.held, change = held, held - self.held
        if not self.guard.buffer(change) or len(self.frames) > FRAGMENTS:
            self._give_up()

    def _give_up(self) -> None:
        self.conn.fail(CloseCode.TRY_AGAIN_LATER, "The server holds too many incomplete messages")
        self.handle_parser_exception()

    @override
    async def send(self, message: Any) -> None:
        await super().send(message)
        message.clear()  # the transport has it now
        # The sender of a large message holds room for it until the client has read it.
        await self.writable.wait()

    @override
    async def receive(self) -> Any:
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self.proceed()
        return message

    def sweep(self, now: float) -> None:
        """Close the connection if the client reads nothing for too long."""
        seconds = UNREAD_SECONDS if self.transport.is_closing() else self.guard.limits.unread_stream_seconds
        if self.unread.is_over(self.transport, now, seconds):
            # `close` would wait until the client reads the rest of the answer.
            self.transport.abort()
